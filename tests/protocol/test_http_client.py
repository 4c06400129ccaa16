"""Every relevant call of `tritonclient.http`, and the app's endpoints, against a server on a real socket."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as client_module
from tritonclient.utils import InferenceServerException

from support.hand_server import HandServer
from support.http_thread import serve_in_thread
from support.wire import Answer, Wire, get, head, post
from triune.core.requests import RequestedOutput
from triune.frontends.limits import Limits

VECTOR = np.arange(16, dtype=np.float32).reshape(1, 16)

ARRAYS = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[0, 65535]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "FP32": np.array([[0.1, -3.4028235e38]], np.float32),
    "FP64": np.array([[0.1, -1.7976931348623157e308]], np.float64),
    "BYTES": np.array([["naïve", ""]], np.object_),
}


@pytest.fixture(scope="module")
def server() -> HandServer:
    return HandServer()


@pytest.fixture(scope="module")
def port(server: HandServer) -> Iterator[int]:
    with serve_in_thread(server, Limits(request_bytes=8 << 20)) as port:
        yield port


@pytest.fixture
def client(port: int, server: HandServer) -> Iterator[client_module.InferenceServerClient]:
    server.requests.clear()
    client = client_module.InferenceServerClient(f"127.0.0.1:{port}", concurrency=4)
    yield client
    client.close()


@pytest.fixture
async def ask(port: int) -> Any:
    async def ask(*parts: bytes) -> Answer:
        wire = await Wire.open(port)
        answer = await wire.ask(*parts)
        await wire.close()
        return answer

    return ask


def tensor(array: np.ndarray = VECTOR, datatype: str = "FP32", *, is_binary: bool = True) -> client_module.InferInput:
    result = client_module.InferInput("INPUT0", list(array.shape), datatype)
    result.set_data_from_numpy(array, binary_data=is_binary)
    return result


@pytest.mark.parametrize("is_binary_output", [True, False])
@pytest.mark.parametrize("is_binary_input", [True, False])
@pytest.mark.parametrize("datatype", ARRAYS)
def test_every_datatype_in_both_forms(
    client: client_module.InferenceServerClient, datatype: str, is_binary_input: bool, is_binary_output: bool
) -> None:
    array = ARRAYS[datatype]
    wanted = client_module.InferRequestedOutput("OUTPUT0", binary_data=is_binary_output)
    result = client.infer(
        "identity", [tensor(array, datatype, is_binary=is_binary_input)], outputs=[wanted], request_id="me"
    )
    assert result.get_response()["id"] == "me"
    output = result.as_numpy("OUTPUT0")
    if datatype == "BYTES":
        texts = [each.decode() if isinstance(each, bytes) else each for each in output.ravel()]
        assert texts == ["naïve", ""]
    else:
        assert output.dtype == array.dtype
        assert np.array_equal(output, array)


def test_fp16_and_bf16_in_binary(client: client_module.InferenceServerClient) -> None:
    half = np.array([[1.5, -65504]], np.float16)
    assert np.array_equal(client.infer("identity", [tensor(half, "FP16")]).as_numpy("OUTPUT0"), half)
    brain = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    assert np.array_equal(client.infer("identity", [tensor(brain, "BF16")]).as_numpy("OUTPUT0"), brain)


@pytest.mark.parametrize("is_binary", [True, False])
def test_numbers_that_are_not_finite_survive_json(client: client_module.InferenceServerClient, is_binary: bool) -> None:
    array = np.array([[np.nan, np.inf, -np.inf, 0.1]], np.float32)
    wanted = client_module.InferRequestedOutput("OUTPUT0", binary_data=False)
    given = client_module.InferInput("INPUT0", list(array.shape), "FP32")
    given.set_data_from_numpy(array, binary_data=is_binary)
    result = client.infer("identity", [given], outputs=[wanted])
    assert np.array_equal(result.as_numpy("OUTPUT0"), array, equal_nan=True)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_both_ways(client: client_module.InferenceServerClient, algorithm: str) -> None:
    array = np.zeros((1, 100_000), np.float32)
    result = client.infer(
        "identity",
        [tensor(array)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert np.array_equal(result.as_numpy("OUTPUT0"), array)


def test_async_infer(client: client_module.InferenceServerClient) -> None:
    waiting = [client.async_infer("identity", [tensor(VECTOR + index)], request_id=str(index)) for index in range(16)]
    for index, each in enumerate(waiting):
        assert np.array_equal(each.get_result().as_numpy("OUTPUT0"), VECTOR + index)


def test_what_a_request_may_say_reaches_the_server(
    client: client_module.InferenceServerClient, server: HandServer
) -> None:
    client.infer(
        "identity",
        [tensor()],
        model_version="2",
        outputs=[client_module.InferRequestedOutput("OUTPUT0", class_count=3)],
        request_id="r",
        sequence_id=9,
        sequence_start=True,
        sequence_end=True,
        priority=2,
        timeout=500,
        parameters={"text": "t", "flag": True, "count": 3, "ratio": 0.5},
    )
    (request,) = server.requests
    assert (request.version, request.id, request.priority, request.timeout_us) == (2, "r", 2, 500)
    assert request.outputs == (RequestedOutput("OUTPUT0", 3),)
    assert request.parameters == {
        "sequence_id": 9,
        "sequence_start": True,
        "sequence_end": True,
        "text": "t",
        "flag": True,
        "count": 3,
        "ratio": 0.5,
    }


def test_response_parameters(client: client_module.InferenceServerClient, server: HandServer) -> None:
    server.parameters = {"a": "b", "n": 1, "f": 0.5, "t": True}
    response = client.infer("identity", [tensor()]).get_response()
    server.parameters = {}
    assert response["parameters"] == {"a": "b", "n": 1, "f": 0.5, "t": True}


def test_health(client: client_module.InferenceServerClient, server: HandServer) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("identity")
    assert client.is_model_ready("identity", "2")
    assert not client.is_model_ready("identity", "1")
    assert not client.is_model_ready("unknown")
    server.is_up = False
    assert not client.is_server_ready()
    server.is_up = True


def test_a_config_is_written_when_its_model_is_loaded(
    client: client_module.InferenceServerClient, server: HandServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of megabytes takes nearly a second, which no request is to wait for."""
    monkeypatch.setattr("triune.config.write.MessageToDict", None)
    assert client.get_model_config("identity") == json.loads(server.config("identity").json)


def test_metadata_config_and_statistics(client: client_module.InferenceServerClient, server: HandServer) -> None:
    assert client.get_server_metadata() == {
        "name": "triune",
        "version": "9.8.7",
        "extensions": ["statistics", "model_repository"],
    }
    for version in ("", "2"):
        assert client.get_model_metadata("identity", version) == {
            "name": "identity",
            "versions": ["2"],
            "platform": "onnxruntime",
            "inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [-1, 16]}],
            "outputs": [{"name": "OUTPUT0", "datatype": "FP32", "shape": [-1, 16]}],
        }
        config = client.get_model_config("identity", version)
        assert (config["name"], config["max_batch_size"], config["input"]) == ("identity", 8, [])
        client.infer("identity", [tensor()])
        counted = server.models["identity"].statistics.success
        (stats,) = client.get_inference_statistics("identity", version)["model_stats"]
        assert (stats["name"], stats["version"]) == ("identity", "2")
        assert stats["inference_stats"]["success"] == {"count": counted.count, "ns": counted.total_ns}
    assert len(client.get_inference_statistics()["model_stats"]) == len(server.models)


def test_the_repository(client: client_module.InferenceServerClient, server: HandServer) -> None:
    index = client.get_model_repository_index()
    assert {"name": "identity", "version": "2", "state": "READY"} in index
    assert {"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "no such file"} in index
    assert {"name": "idle"} in index
    client.load_model("identity")
    client.load_model("identity", config="{}", files={"file:1/model.onnx": b"\0\1"})
    assert server.loads == [("identity", None, {}), ("identity", "{}", {"1/model.onnx": b"\0\1"})]
    client.unload_model("identity")
    client.unload_model("identity", unload_dependents=True)
    assert server.unloads == [("identity", False), ("identity", True)]
    with pytest.raises(InferenceServerException, match="no such file"):
        client.load_model("broken")


def test_errors_reach_the_client_with_their_message(client: client_module.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="holds poison") as error:
        client.infer("failing", [tensor()])
    assert error.value.status() == "400"
    with pytest.raises(InferenceServerException, match="unknown model"):
        client.get_model_metadata("unknown")


def test_what_this_server_does_not_offer_says_so(client: client_module.InferenceServerClient) -> None:
    for call in (
        client.get_system_shared_memory_status,
        client.get_cuda_shared_memory_status,
        lambda: client.register_system_shared_memory("r", "/r", 64),
        client.get_trace_settings,
        lambda: client.get_trace_settings("identity"),
        lambda: client.update_log_settings({"log_info": True}),
    ):
        with pytest.raises(InferenceServerException, match="does not offer") as error:
            call()
        assert error.value.status() == "501"


@pytest.mark.parametrize(
    ("request_bytes", "status", "message"),
    [
        (get("/"), 404, "Not Found"),
        (get("/v2/"), 404, "Not Found"),
        (get("/v2/models"), 404, "Not Found: there is no path '/v2/models'"),
        (get("/v2/models/identity/versions/x"), 404, "has no version"),
        (get("/v2/models/identity/versions/-1/config"), 404, "has no version"),
        (get("/v2/models/identity/versions/9/config"), 404, "no version 9"),
        (post("/v2", b""), 405, "Method Not Allowed: the path '/v2' takes "),
        (head("DELETE", "/v2/models/identity", {"Host": "x"}), 405, "Method Not Allowed"),
        (post("/v2/repository/index", b"[]"), 400, "must be an object"),
        (post("/v2/repository/index", b'{"ready":1}'), 400, "Invalid value for 'ready': expected a boolean"),
        (post("/v2/repository/index", b"{"), 400, "not valid JSON"),
        (post("/v2/repository/models/m/load", b'{"parameters":[]}'), 400, "'parameters' must be an object"),
        (post("/v2/repository/models/m/load", b'{"parameters":{"x":"y"}}'), 400, "not 'x'"),
        (post("/v2/repository/models/m/load", b'{"parameters":{"config":{}}}'), 400, "'config' must be a string"),
        (post("/v2/repository/models/m/load", b'{"parameters":{"file:1/m":"*"}}'), 400, "not valid base64"),
        (post("/v2/repository/models/m/load", b'{"parameters":{"file:1/m":"\xc3\xa9"}}'), 400, "not valid base64"),
        (post("/v2/repository/models/m/unload", b'{"parameters":{"unload_dependents":3}}'), 400, "must be true or"),
        (post("/v2/repository/mine/models/m/load", b""), 501, "leave the name out"),
        (post("/v2/models/identity/generate", b"3"), 400, "must be an object"),
    ],
)
async def test_bad_requests_to_the_app(ask: Any, request_bytes: bytes, status: int, message: str) -> None:
    answer = await ask(request_bytes)
    assert answer.status == status
    assert message in answer.error
    assert answer.headers["content-type"] == "application/json"


async def test_only_ready_models_in_the_index(ask: Any) -> None:
    answer = await ask(post("/v2/repository/index", b'{"ready":true}'))
    assert {each["state"] for each in answer.json} == {"READY"}
    assert (await ask(post("/v2/repository/index", b""))).status == 200


async def test_a_file_of_a_model_in_chunks(ask: Any, server: HandServer) -> None:
    content = bytes(range(256)) * 2000
    text = json.dumps(
        {"parameters": {"config": "{}", "file:1/model.onnx": base64.b64encode(content).decode()}}
    ).encode()
    server.loads.clear()
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(text[i : i + 9999]), text[i : i + 9999]) for i in range(0, len(text), 9999)
    )
    start = head("POST", "/v2/repository/models/m/load", {"Host": "x", "Transfer-Encoding": "chunked"})
    assert (await ask(start, chunks, b"0\r\n\r\n")).status == 200
    assert server.loads == [("m", "{}", {"1/model.onnx": content})]
