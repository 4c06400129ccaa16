"""The units of a machine over HTTP, from a real server."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import triune
from support.process import Served, serve
from support.repositories import affine, write_model
from triune.hardware.facts import units_json

KEY = {"Authorization": "Bearer rose-7Q"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "affine", v1=affine())
    with serve(folder, "--api-key=rose-7Q") as running:
        yield running


def ask(served: Served, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(f"http://{served.http}/v2/units", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_a_server_tells_what_the_command_prints(served: Served) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(served, KEY), range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0] == units_json(triune.units())


def test_it_has_the_rule_of_metadata(served: Served) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(served, {})
    assert refused.value.code == 401
