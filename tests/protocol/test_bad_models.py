"""A server over a repository in which all lies that can: it starts, serves what is good, and says what is not."""

import json
import shutil
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc

from support.hostile import HOSTILE, Lay
from support.process import Served, serve
from support.repositories import affine, write_model

_ALL = list(HOSTILE.values())


def _lay(repository: Path, lies: Sequence[tuple[Lay, str, str]]) -> None:
    """Each under a name of its own."""
    for number, (lay, name, _) in enumerate(lies):
        place = repository.parent / f"lay{number}"
        place.mkdir()
        lay(place)
        for each in place.iterdir():
            target = each.name if name != "bad" else f"bad{number}"
            if each.is_symlink():
                (repository / target).symlink_to(target if each.readlink() == Path("bad") else each.readlink())
            else:
                each.rename(repository / target)


def _index(served: Served) -> dict[str, Any]:
    request = urllib.request.Request(f"http://{served.http}/v2/repository/index", method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return {each["name"]: each for each in json.load(answer)}


def _check(served: Served, lies: Sequence[tuple[Lay, str, str]]) -> None:
    index = _index(served)
    assert index["good"]["state"] == "READY"
    for number, (_, name, why) in enumerate(lies):
        entry = index[f"bad{number}" if name == "bad" else name]
        assert entry["state"] == "UNAVAILABLE"
        assert why in entry["reason"]
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        assert len(client.get_model_repository_index().models) == len(index)
        assert client.is_model_ready("good")


def test_at_the_start_and_the_server_ends_in_order(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    write_model(repository, "good", v1=affine())
    _lay(repository, _ALL)
    with serve(repository) as served:
        _check(served, _ALL)
        served.interrupt()
        assert served.process.wait(60) == 0


def test_while_polling(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """A fixed fourth of it, unless `--whole` is given: what is said of each does not depend on when it was found."""
    lies = _ALL if pytestconfig.getoption("--whole") else _ALL[::4]
    repository, other = tmp_path / "repository", tmp_path / "other"
    write_model(repository, "good", v1=affine())
    write_model(other, "second", v1=affine())
    with serve(
        repository, f"--repository={other}", "--model-control-mode=poll", "--repository-poll-secs=0.2"
    ) as served:
        _lay(repository, lies)
        (other / "second").rename(tmp_path / "second")
        other.rmdir()
        write_model(repository, "late", v1=affine())
        deadline = time.monotonic() + 60
        # One that is found and not yet begun with has no state.
        while "late" not in (index := _index(served)) or any(
            each.get("state", "LOADING") == "LOADING" for each in index.values()
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert index["late"]["state"] == "READY"
        _check(served, lies)
        # Its repository is gone, and told of; it is not.
        assert _index(served)["second"]["state"] == "READY"
        assert "its models are served as before" in "".join(served.lines)
        shutil.rmtree(repository / "good")
        while "good" in _index(served):
            assert time.monotonic() < deadline
            time.sleep(0.1)
