"""A server with a memory budget that holds two of three models: all three answer, and what does not fit is refused."""

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from onnx import TensorProto, helper, numpy_helper

from support.process import Served, serve

SIZE = 1024
NUM_WEIGHTS = 8
MEBIBYTES = NUM_WEIGHTS * SIZE * SIZE * 4 >> 20
"""What the weights of each model take."""

SCALES = {"one": 1.0, "two": 2.0, "three": 3.0}


def content(scale: float, num_weights: int) -> bytes:
    """y = scale * x, by products with matrices of `SIZE` squared, all but the first of which are 1."""
    nodes, weights, value = [], [], "x"
    for number in range(num_weights):
        matrix = np.eye(SIZE, dtype=np.float32) * (scale if number == 0 else 1)
        weights.append(numpy_helper.from_array(matrix, f"w{number}"))
        result = "y" if number == num_weights - 1 else f"v{number}"
        nodes.append(helper.make_node("MatMul", [value, f"w{number}"], [result]))
        value = result
    shape = ["batch", SIZE]
    graph = helper.make_graph(
        nodes,
        "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def put(repository: Path, name: str, scale: float, num_weights: int = NUM_WEIGHTS, config: str = "") -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content(scale, num_weights))
    (repository / name / "config.pbtxt").write_text(config)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("memory") / "models"
    for name, scale in SCALES.items():
        put(path, name, scale)
    put(path, "huge", 9.0, num_weights=24)
    return path


@pytest.fixture(scope="module")
def served(repository: Path) -> Iterator[Served]:
    with serve(repository, f"--model-memory-bytes={int(2.5 * MEBIBYTES) << 20}") as served:
        yield served


def index(served: Served) -> dict[str, dict[str, Any]]:
    request = urllib.request.Request(f"http://{served.http}/v2/repository/index", method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return {each["name"]: each for each in json.load(answer)}


def post(url: str, document: object) -> tuple[int, str | None, dict[str, Any]]:
    """The status of a POST, its Retry-After, and the JSON of its answer."""
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, None, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Retry-After"], json.loads(error.read())


def metrics(served: Served) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{served.metrics}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith("triune_memory")
    }


def infer(client: Any, name: str, value: float) -> float:
    tensor = tritonclient.http.InferInput("x", [1, SIZE], "FP32")
    tensor.set_data_from_numpy(np.full((1, SIZE), value, np.float32))
    y = client.infer(name, [tensor]).as_numpy("y")
    assert np.all(y == y[0, 0])
    return float(y[0, 0])


@pytest.mark.timeout(120)
def test_all_three_answer_one_after_the_other(served: Served) -> None:
    client = tritonclient.http.InferenceServerClient(served.http, network_timeout=60)
    states = {name: entry["state"] for name, entry in index(served).items()}
    assert sorted(states.values()) == ["READY", "READY", "UNAVAILABLE", "UNAVAILABLE"]
    for value, name in enumerate(["one", "two", "three", "one", "two", "three", "three"], 1):
        assert client.is_model_ready(name)
        assert client.get_model_metadata(name)["inputs"][0]["name"] == "x"
        assert infer(client, name, value) == value * SCALES[name]
        now = index(served)
        assert now[name]["state"] == "READY"
        out = [each for each in SCALES if now[each]["state"] == "UNAVAILABLE"]
        assert len(out) == 1
        assert now[out[0]]["reason"].startswith("unloaded for room: ")
        assert "a request loads it again" in now[out[0]]["reason"]


def test_a_model_larger_than_memory_is_refused_and_told_why(served: Served) -> None:
    entry = index(served)["huge"]
    assert entry["state"] == "UNAVAILABLE"
    assert "allow them more by --model-memory-bytes" in entry["reason"]
    numbers = [int(each) for each in re.findall(r"\d{6,}", entry["reason"])]
    assert numbers[0] >= 24 * SIZE * SIZE * 4
    assert numbers[1] == int(2.5 * MEBIBYTES) << 20
    status, retry_after, _ = post(f"http://{served.http}/v2/models/huge/infer", {"inputs": []})
    assert (status, retry_after) == (503, "1")


@pytest.mark.timeout(180)
def test_a_storm_of_clients_on_all_of_them(served: Served) -> None:
    wrong: list[str] = []

    def client(name: str, number: int) -> None:
        try:
            session = tritonclient.http.InferenceServerClient(served.http, network_timeout=120)
            for value in range(1, 6):
                if infer(session, name, value) != value * SCALES[name]:
                    wrong.append(name)
        except Exception as error:
            wrong.append(f"{name} {number}: {error}")

    threads = [threading.Thread(target=client, args=(name, number)) for name in SCALES for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []


@pytest.mark.timeout(120)
def test_who_cannot_wait_is_told_when_to_come_again(served: Served) -> None:
    name = next(each for each in SCALES if index(served)[each]["state"] != "READY")
    body = {
        "inputs": [{"name": "x", "shape": [1, SIZE], "datatype": "FP32", "data": [1.0] * SIZE}],
        "parameters": {"timeout": 100},
    }
    url = f"http://{served.http}/v2/models/{name}/infer"
    status, retry_after, document = post(url, body)
    assert status == 503
    assert int(retry_after or 0) >= 1
    assert "was not in memory" in document["error"]
    del body["parameters"]
    assert post(url, body)[0] == 200
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        tensor = tritonclient.grpc.InferInput("x", [1, SIZE], "FP32")
        tensor.set_data_from_numpy(np.ones((1, SIZE), np.float32))
        for each, scale in SCALES.items():
            assert client.infer(each, [tensor]).as_numpy("y")[0, 0] == scale


def test_the_metrics_say_what_is_charged(served: Served) -> None:
    told = metrics(served)
    assert told["triune_memory_budget_bytes"] == int(2.5 * MEBIBYTES) << 20
    charged = {key: value for key, value in told.items() if key.startswith("triune_memory_charged_bytes")}
    assert 0 < sum(charged.values()) <= told["triune_memory_budget_bytes"]
    assert sum(value for key, value in told.items() if key.startswith("triune_memory_unloads_total")) > 0
    assert told['triune_memory_refusals_total{model="huge"}'] >= 1


@pytest.mark.timeout(120)
def test_with_explicit_control_a_load_without_room_is_refused(repository: Path) -> None:
    with serve(
        repository, f"--model-memory-bytes={int(2.5 * MEBIBYTES) << 20}", "--model-control-mode=explicit"
    ) as served:

        def control(name: str, verb: str) -> tuple[int, str | None, dict[str, Any]]:
            return post(f"http://{served.http}/v2/repository/models/{name}/{verb}", {})

        assert control("one", "load")[0] == 200
        assert control("two", "load")[0] == 200
        status, retry_after, document = control("three", "load")
        assert (status, retry_after) == (503, "1")
        assert "'one' takes" in document["error"]
        assert "(pinned)" in document["error"]
        assert control("huge", "load")[0] == 501
        assert control("one", "unload")[0] == 200
        assert control("three", "load")[0] == 200
        client = tritonclient.http.InferenceServerClient(served.http)
        assert infer(client, "three", 2) == 6
