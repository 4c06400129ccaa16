"""Models like those of Triton's QA repository, and calls of Triton's clients, for the suite based on that
repository.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from onnx import TensorProto, helper

from support.process import Served
from support.triton_tensors import tensors

CASES = Path(__file__).parents[1] / "conformance" / "triton_qa" / "cases.txt"
"""Every test of the folders, one a line, as `folder/file::test`."""

MODULES: Mapping[str, ModuleType] = {"http": tritonclient.http, "grpc": tritonclient.grpc}
FP16, FP32, INT32, INT64, STRING = (
    TensorProto.FLOAT16,
    TensorProto.FLOAT,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.STRING,
)


UNBATCHED_STRINGS = """max_batch_size: 0
input [ { name: "INPUT0" data_type: TYPE_STRING dims: -1 } ]
output [ { name: "OUTPUT0" data_type: TYPE_STRING dims: -1 } ]
"""
RAW = {"Inference-Header-Content-Length": "0"}
JSON = {"Content-Type": "application/json"}


def zero(
    datatype: int = FP32, num_tensors: int = 1, dims: Sequence[int | str] = ("n",), *, batch: bool = True
) -> bytes:
    """A model whose OUTPUTi is INPUTi, like Triton's "zero" models."""
    nodes, inputs, outputs = [], [], []
    for index in range(num_tensors):
        shape = [*(["batch"] if batch else []), *dims]
        nodes.append(helper.make_node("Identity", [f"INPUT{index}"], [f"OUTPUT{index}"]))
        inputs.append(helper.make_tensor_value_info(f"INPUT{index}", datatype, shape))
        outputs.append(helper.make_tensor_value_info(f"OUTPUT{index}", datatype, shape))
    return model_bytes(helper.make_graph(nodes, "zero", inputs, outputs))


def scalar() -> bytes:
    """A model whose OUTPUT is INPUT, a scalar."""
    values = [helper.make_tensor_value_info(name, FP32, []) for name in ("INPUT", "OUTPUT")]
    return model_bytes(
        helper.make_graph([helper.make_node("Identity", ["INPUT"], ["OUTPUT"])], "scalar", values[:1], values[1:])
    )


def add_sub_strings() -> bytes:
    """OUTPUT0 is the sum of INPUT0 and INPUT1, OUTPUT1 their difference; the inputs are numbers as strings."""
    names = ("INPUT0", "INPUT1")
    nodes = [helper.make_node("Cast", [name], [f"number {name}"], to=INT32) for name in names]
    for output, op in (("OUTPUT0", "Add"), ("OUTPUT1", "Sub")):
        nodes.append(helper.make_node(op, [f"number {name}" for name in names], [output]))
    inputs = [helper.make_tensor_value_info(name, STRING, ["batch", 16]) for name in names]
    outputs = [helper.make_tensor_value_info(name, INT32, ["batch", 16]) for name in ("OUTPUT0", "OUTPUT1")]
    return model_bytes(helper.make_graph(nodes, "add_sub", inputs, outputs))


def held() -> bytes:
    """A model whose OUTPUT0 is INPUT0, after as many iterations of a Loop as its largest number. It replaces Triton's
    delayed models.
    """
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Mul", ["a", "one"], ["b"])],
        "turn",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", FP32, [1]),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), helper.make_tensor_value_info("b", FP32, [1])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["INPUT0"], ["largest"], keepdims=0),
            helper.make_node("Cast", ["largest"], ["turns"], to=INT64),
            helper.make_node("Loop", ["turns", "", "nothing"], ["done"], body=body),
            # Use the Loop's result in a way that keeps the output's shape known.
            helper.make_node("ScatterElements", ["nothing", "first", "done"], ["none"]),
            helper.make_node("Add", ["INPUT0", "none"], ["OUTPUT0"]),
        ],
        "held",
        [helper.make_tensor_value_info("INPUT0", FP32, ["batch", "n"])],
        [helper.make_tensor_value_info("OUTPUT0", FP32, ["batch", "n"])],
        [
            helper.make_tensor("one", FP32, [1], [1.0]),
            helper.make_tensor("nothing", FP32, [1], [0.0]),
            helper.make_tensor("first", INT64, [1], [0]),
        ],
    )
    return model_bytes(graph)


def model_bytes(graph: onnx.GraphProto) -> bytes:
    """Serialize a model of this graph, after ONNX's checker has accepted it."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def post(served: Served, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> requests.Response:
    """Send a POST request to the HTTP port. The body is sent as it is if it is bytes or text, else as JSON."""
    data = body if isinstance(body, bytes | str) else json.dumps(body)
    return requests.post(f"http://{served.http}/{path}", data=data, headers=dict(headers or {}), timeout=60)


def get(served: Served, path: str) -> requests.Response:
    return requests.get(f"http://{served.http}/{path}", timeout=60)


def metrics(served: Served) -> str:
    return requests.get(f"http://{served.metrics}/metrics", timeout=60).text


def states(served: Served) -> dict[str, str]:
    """The states in the repository index, by `name` or `name/version`."""
    index = post(served, "v2/repository/index", b"").json()
    return {
        each["name"] + (f"/{each['version']}" if each.get("version") else ""): each.get("state", "") for each in index
    }


def tensor(
    name: str = "INPUT0", datatype: str = "FP32", shape: object = (1, 8), data: object = None
) -> dict[str, object]:
    return {
        "name": name,
        "datatype": datatype,
        "shape": shape,
        "data": np.arange(8.0).tolist() if data is None else data,
    }


def refused(response: requests.Response, status: int, *words: str) -> None:
    assert response.status_code == status, response.text[:500]
    assert response.headers["Content-Type"] == "application/json"
    for each in words:
        assert each in response.json()["error"]


def cases_of(prefix: str) -> Callable[..., pytest.MarkDecorator]:
    """Make a decorator that marks a test as a port of named tests in a file of Triton's QA. `prefix` is
    `folder/file::`.
    """
    return lambda *names: pytest.mark.triton(*(prefix + name for name in names))


class Asked:
    """Requests to one identity model, which are sent when the test tells it to, and their results.

    `queue` is the model in whose queue they wait, if it is another one, such as a step of an ensemble.
    """

    def __init__(self, served: Served, model: str, queue: str = "") -> None:
        self.model = model
        self.queue = queue or model
        self.order: list[int] = []
        self.errors: dict[int, str] = {}
        self._client = tritonclient.grpc.InferenceServerClient(served.grpc)
        self._done: list[threading.Event] = []
        self._sent: list[np.ndarray] = []

    def send(
        self, rows: int, *, width: int = 16, value: float = 0.0, outputs: Sequence[str] = (), **options: Any
    ) -> int:
        """Send a request of this many rows. Returns its number, which `order` and `errors` use. `value` determines how
        long a held model takes.
        """
        number, done = len(self._done), threading.Event()
        array = np.full((rows, width), value, np.float32)
        array[:, 1:] = np.minimum(number, value)
        self._done.append(done)
        self._sent.append(array)
        inputs = tensors(tritonclient.grpc, dict.fromkeys(self._names(), array))
        asked = [tritonclient.grpc.InferRequestedOutput(name) for name in outputs] or None

        def note(result: Any, error: Any) -> None:
            self.order.append(number)
            if error is not None:
                self.errors[number] = error.message()
            elif not np.array_equal(result.as_numpy((outputs or ["OUTPUT0"])[0]), array):
                self.errors[number] = "another's answer"
            done.set()

        self._client.async_infer(self.model, inputs, note, outputs=asked, **options)
        return number

    def wait(self, *numbers: int) -> None:
        """Wait for these requests, or for all."""
        for number in numbers or range(len(self._done)):
            assert self._done[number].wait(60), f"request {number} was not answered"

    def wait_past(self, milliseconds: float) -> None:
        """Wait until this much time has passed."""
        time.sleep(milliseconds / 1000)

    def statistics(self) -> Any:
        return self._client.get_inference_statistics(self.queue).model_stats[0]

    def batches(self) -> dict[int, int]:
        """The number of executions by batch size, in rows."""
        return {each.batch_size: each.compute_infer.count for each in self.statistics().batch_stats}

    def waited_ms(self) -> float:
        """The total time that all requests waited in the queue."""
        return self.statistics().inference_stats.queue.ns / 1e6

    def num_waiting(self, served: Served) -> int:
        """How many requests wait in the queue."""
        line = f'nv_inference_pending_request_count{{model="{self.queue}",version="1"}} '
        value = next(each for each in metrics(served).splitlines() if each.startswith(line))
        return int(float(value.rsplit(" ", 1)[1]))

    def until_waiting(self, served: Served, number: int) -> list[int]:
        """Wait until this many requests wait in the queue. Returns the numbers that were observed, which need not be
        all that occurred.
        """
        deadline = time.monotonic() + 60
        seen = [self.num_waiting(served)]
        while seen[-1] != number:
            assert time.monotonic() < deadline, f"{number} requests never waited: {seen[-1]}"
            time.sleep(0.01)
            seen.append(self.num_waiting(served))
        return seen

    def _names(self) -> Sequence[str]:
        return ("INPUT0", "INPUT1") if self.model.endswith("_two") else ("INPUT0",)

    def close(self) -> None:
        self._client.close()
