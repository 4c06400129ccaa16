"""Models in processes of their own, behind a real server, while these are killed."""

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from support.process import Served, serve
from support.repositories import add_sub, scaled_by_scalar, write_model

CONFIG = 'parameters { key: "own_process" value { string_value: "true" } }'


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`apart` and `two` (two instances) run in processes of their own, `simple` in the server."""
    folder = tmp_path_factory.mktemp("repository")
    write_model(folder, "apart", CONFIG, v1=scaled_by_scalar())
    write_model(folder, "two", CONFIG + "\ninstance_group [ { count: 2 } ]", v1=add_sub())
    write_model(folder, "simple", v1=add_sub())
    return folder


def children(served: Served) -> list[psutil.Process]:
    return psutil.Process(served.process.pid).children()


def hosting(served: Served, model: str) -> list[psutil.Process]:
    """Those alive that run `model`."""
    found = []
    for each in children(served):
        with contextlib.suppress(psutil.NoSuchProcess):
            if f"/{model}/" in " ".join(each.cmdline()):
                found.append(each)
    return found


def workers_of(served: Served) -> list[psutil.Process]:
    """Those alive that run models. A new model's trial has a process, too, which goes some time later."""
    return [*hosting(served, "apart"), *hosting(served, "two")]


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def ask(client: tritonclient.http.InferenceServerClient, model: str, value: int) -> None:
    """One request, its answer checked."""
    if model == "apart":
        arrays = {"x": np.full((2, 20_000), value, np.float32), "rate": np.array([3], np.float32)}
    else:
        arrays = {"INPUT0": np.full((1, 16), value, np.int32), "INPUT1": np.ones((1, 16), np.int32)}
    tensors = []
    for name, array in arrays.items():
        tensor = tritonclient.http.InferInput(name, array.shape, "INT32" if array.dtype == np.int32 else "FP32")
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    result = client.infer(model, tensors)
    if model == "apart":
        assert np.all(result.as_numpy("y") == 3 * value)
    else:
        assert np.all(result.as_numpy("OUTPUT0") == value + 1)


@pytest.mark.timeout(300)
def test_workers_are_killed_under_load(repository: Path) -> None:
    num_kills = 3
    stop = threading.Event()
    answered: Counter[str] = Counter()

    def work(address: str, model: str) -> tuple[int, list[str]]:
        num_answers, errors = 0, list[str]()
        with tritonclient.http.InferenceServerClient(address) as client:
            while not stop.is_set():
                try:
                    ask(client, model, num_answers % 1000)
                    num_answers += 1
                    answered[model] += 1
                except InferenceServerException as error:
                    errors.append(str(error))
        return num_answers, errors

    with serve(repository) as served, tritonclient.http.InferenceServerClient(served.http) as client:
        assert len(workers_of(served)) == 3
        models = ["apart"] * 3 + ["two"] * 2 + ["simple"]
        with ThreadPoolExecutor(len(models)) as pool:
            futures = [pool.submit(work, served.http, model) for model in models]
            try:
                for number in range(num_kills):
                    # Killed again and again while it loads, it would be given up: it must have answered.
                    before = answered["apart"]
                    until(lambda: answered["apart"] > before + 5)  # noqa: B023
                    hosting(served, "apart")[0].kill()
                    if number == 1:
                        hosting(served, "two")[0].kill()
                until(lambda: len(workers_of(served)) == 3)
                time.sleep(1)
            finally:
                stop.set()
            results = [future.result() for future in futures]
        by_model: dict[str, list[str]] = {}
        for model, (num_answers, errors) in zip(models, results, strict=True):
            assert num_answers > 0
            by_model.setdefault(model, []).extend(errors)
        # One request at most was under way each time, and only that one hears of it.
        assert len(by_model["apart"]) <= num_kills
        assert len(by_model["two"]) <= 1
        assert by_model["simple"] == []
        for error in by_model["apart"] + by_model["two"]:
            assert "was killed by SIGKILL while it computed this request" in error
        assert client.is_server_ready()
        for model in models:
            ask(client, model, 7)
        assert any("started again" in line for line in served.lines)
        assert not any("Traceback" in line for line in served.lines)
        assert not any("leaked" in line for line in served.lines)


def test_the_request_under_way_hears_of_it(repository: Path) -> None:
    with serve(repository) as served, tritonclient.http.InferenceServerClient(served.http) as client:
        ask(client, "apart", 1)
        (worker,) = hosting(served, "apart")
        # Stopped, it takes the request and gives no answer.
        worker.suspend()
        with ThreadPoolExecutor(1) as pool, tritonclient.http.InferenceServerClient(served.http) as other:
            future = pool.submit(ask, other, "apart", 2)
            time.sleep(0.5)
            assert not future.done()
            ask(client, "simple", 3)
            worker.kill()
            with pytest.raises(InferenceServerException, match="SIGKILL.*which may be what ended it") as failure:
                future.result()
        assert failure.value.status() == "500"
        ask(client, "apart", 4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_workers_end_with_the_server(repository: Path, number: int) -> None:
    with serve(repository) as served:
        workers = workers_of(served)
        assert len(workers) == 3
        os.kill(served.process.pid, number)
        assert served.process.wait(60) == (0 if number == signal.SIGTERM else -number)
        psutil.wait_procs(workers, timeout=60)
        assert not any(each.is_running() for each in workers)


def test_the_next_server_removes_what_a_killed_one_leaves(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serve(repository) as served:
        workers = workers_of(served)
        served.process.kill()
        psutil.wait_procs(workers, timeout=60)
    left = set(tmp_path.iterdir())
    assert len(left) >= 3
    with serve(repository):
        assert not left & set(tmp_path.iterdir())
    assert not [*tmp_path.iterdir()]


def test_a_worker_ends_with_its_model(repository: Path) -> None:
    with (
        serve(repository, "--model-control-mode=explicit", "--load-model=*") as served,
        tritonclient.http.InferenceServerClient(served.http) as client,
    ):
        assert len(hosting(served, "two")) == 2
        client.unload_model("two")
        until(lambda: hosting(served, "two") == [])
        assert len(hosting(served, "apart")) == 1
