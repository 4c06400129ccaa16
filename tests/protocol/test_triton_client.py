"""tritonclient, unchanged, against a real server: every call that Triton's own examples make."""

import queue
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from support.process import Served, serve

CLIENTS: dict[str, ModuleType] = {"http": tritonclient.http, "grpc": tritonclient.grpc}


@pytest.fixture(params=["http", "grpc"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    return CLIENTS[request.param]


@pytest.fixture
def client(module: ModuleType, served: Served) -> Any:
    address = served.http if module is tritonclient.http else served.grpc
    with module.InferenceServerClient(address) as client:
        yield client


def as_dict(value: Any) -> dict[str, Any]:
    """gRPC answers are messages unless asked for as JSON; HTTP's are dictionaries."""
    from google.protobuf.json_format import MessageToDict

    return value if isinstance(value, (dict, list)) else MessageToDict(value, preserving_proto_field_name=True)


def simple_inputs(module: ModuleType, a: np.ndarray, b: np.ndarray, **options: Any) -> list[Any]:
    inputs = []
    for name, array in (("INPUT0", a), ("INPUT1", b)):
        tensor = module.InferInput(name, list(array.shape), "INT32")
        tensor.set_data_from_numpy(array, **options)
        inputs.append(tensor)
    return inputs


A = np.arange(16, dtype=np.int32).reshape(1, 16)
B = np.full((1, 16), 3, np.int32)


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("simple")
    assert client.is_model_ready("simple", "1")
    assert not client.is_model_ready("nothing")
    server = as_dict(client.get_server_metadata())
    assert server["name"] == "triune"
    assert "model_repository" in server["extensions"]
    model = as_dict(client.get_model_metadata("simple"))
    assert model["name"] == "simple"
    assert model["versions"] == ["1"]
    assert model["platform"] == "onnxruntime_onnx"
    assert [each["name"] for each in model["inputs"]] == ["INPUT0", "INPUT1"]
    assert [int(size) for size in model["inputs"][0]["shape"]] == [-1, 16]
    assert model["inputs"][0]["datatype"] == "INT32"


def test_config(client: Any) -> None:
    config = as_dict(client.get_model_config("simple"))
    config = config.get("config", config)
    assert config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_INT32"
    assert [int(dim) for dim in config["input"][0]["dims"]] == [16]


def test_infer(client: Any, module: ModuleType) -> None:
    outputs = [module.InferRequestedOutput("OUTPUT0"), module.InferRequestedOutput("OUTPUT1")]
    result = client.infer("simple", simple_inputs(module, A, B), outputs=outputs, request_id="seven")
    assert (result.as_numpy("OUTPUT0") == A + B).all()
    assert (result.as_numpy("OUTPUT1") == A - B).all()
    response = as_dict(result.get_response())
    assert response["id"] == "seven"
    assert response["model_version"] == "1"


def test_infer_without_outputs_gives_all(client: Any, module: ModuleType) -> None:
    result = client.infer("simple", simple_inputs(module, A, B), model_version="1")
    assert result.as_numpy("OUTPUT0") is not None
    assert result.as_numpy("OUTPUT1") is not None


def test_infer_in_json(served: Served) -> None:
    module = tritonclient.http
    with module.InferenceServerClient(served.http) as client:
        outputs = [module.InferRequestedOutput(name, binary_data=False) for name in ("OUTPUT0", "OUTPUT1")]
        result = client.infer("simple", simple_inputs(module, A, B, binary_data=False), outputs=outputs)
        assert (result.as_numpy("OUTPUT1") == A - B).all()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client: Any, module: ModuleType, algorithm: str) -> None:
    if module is tritonclient.http:
        options = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    else:
        options = {"compression_algorithm": algorithm}
    result = client.infer("simple", simple_inputs(module, A, B), **options)
    assert (result.as_numpy("OUTPUT0") == A + B).all()


def test_bytes(client: Any, module: ModuleType) -> None:
    words = np.array([str(value).encode() for value in range(16)], np.object_).reshape(1, 16)
    inputs = []
    for name in ("INPUT0", "INPUT1"):
        tensor = module.InferInput(name, [1, 16], "BYTES")
        tensor.set_data_from_numpy(words)
        inputs.append(tensor)
    result = client.infer("simple_string", inputs)
    assert [int(each) for each in result.as_numpy("OUTPUT0")[0]] == [2 * value for value in range(16)]
    assert [int(each) for each in result.as_numpy("OUTPUT1")[0]] == [0] * 16


def test_classification(client: Any, module: ModuleType) -> None:
    outputs = [module.InferRequestedOutput("OUTPUT0", class_count=2)]
    result = client.infer("simple", simple_inputs(module, A, B), outputs=outputs)
    assert result.as_numpy("OUTPUT0").tolist() == [[b"18:15", b"17:14"]]
    for count, dtype in ((0, np.int32), (2**62, np.object_)):
        outputs = [module.InferRequestedOutput("OUTPUT0")]
        parameters = getattr(outputs[0], "_parameters", None)
        if parameters is None:
            outputs[0]._get_tensor().parameters["classification"].int64_param = count
        else:
            parameters["classification"] = count
        result = client.infer("simple", simple_inputs(module, A, B), outputs=outputs).as_numpy("OUTPUT0")
        assert (result.shape, result.dtype) == ((1, 16), dtype)


def test_errors_say_what_was_expected(client: Any, module: ModuleType) -> None:
    with pytest.raises(InferenceServerException, match="nothing"):
        client.infer("nothing", simple_inputs(module, A, B))
    with pytest.raises(InferenceServerException, match=r"Expected \[-1,16\] .*, got \[1,15\]"):
        client.infer("simple", simple_inputs(module, A[:, :15], B))
    with pytest.raises(InferenceServerException, match=r"missing required input\(s\) \[.INPUT1.\]"):
        client.infer("simple", simple_inputs(module, A, B)[:1])
    with pytest.raises(InferenceServerException, match="version"):
        client.infer("simple", simple_inputs(module, A, B), model_version="9")


def test_asynchronous_infer(served: Served) -> None:
    with tritonclient.http.InferenceServerClient(served.http, concurrency=8) as client:
        pending = [client.async_infer("simple", simple_inputs(tritonclient.http, A + i, B)) for i in range(32)]
        for i, each in enumerate(pending):
            assert (each.get_result().as_numpy("OUTPUT0") == A + i + B).all()
    answers: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        for i in range(32):
            client.async_infer(
                "simple",
                simple_inputs(tritonclient.grpc, A + i, B),
                lambda result, error, i=i: answers.put((i, result, error)),
            )
        for _ in range(32):
            i, result, error = answers.get(timeout=60)
            assert error is None
            assert (result.as_numpy("OUTPUT0") == A + i + B).all()


async def test_asyncio_clients(served: Served) -> None:
    async with tritonclient.http.aio.InferenceServerClient(served.http) as client:
        result = await client.infer("simple", simple_inputs(tritonclient.http, A, B))
        assert (result.as_numpy("OUTPUT0") == A + B).all()
    async with tritonclient.grpc.aio.InferenceServerClient(served.grpc) as client:
        result = await client.infer("simple", simple_inputs(tritonclient.grpc, A, B))
        assert (result.as_numpy("OUTPUT0") == A + B).all()


def test_stream(served: Served) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for i in range(20):
            client.async_stream_infer("simple", simple_inputs(tritonclient.grpc, A + i, B), request_id=str(i))
        client.async_stream_infer("simple", simple_inputs(tritonclient.grpc, A[:, :3], B), request_id="bad")
        client.async_stream_infer("simple", simple_inputs(tritonclient.grpc, A, B), request_id="good")
        seen: dict[str, Any] = {}
        for _ in range(22):
            result, error = answers.get(timeout=60)
            seen[result.get_response().id if error is None else "bad"] = error or result
        client.stop_stream()
    assert isinstance(seen.pop("bad"), InferenceServerException)
    assert (seen.pop("good").as_numpy("OUTPUT0") == A + B).all()
    assert {int(key): int(value.as_numpy("OUTPUT0")[0, 0]) for key, value in seen.items()} == {
        i: i + 3 for i in range(20)
    }


def test_statistics_advance(client: Any, module: ModuleType) -> None:
    def statistics() -> dict[str, Any]:
        return as_dict(client.get_inference_statistics("simple"))["model_stats"][0]

    client.infer("simple", simple_inputs(module, A, B))
    before = statistics()
    client.infer("simple", simple_inputs(module, np.repeat(A, 4, 0), np.repeat(B, 4, 0)))
    after = statistics()
    assert int(after["inference_count"]) - int(before["inference_count"]) == 4
    assert int(after["execution_count"]) - int(before["execution_count"]) == 1
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert int(after["inference_stats"][name]["count"]) == int(before["inference_stats"][name]["count"]) + 1
    assert int(after["inference_stats"]["compute_infer"]["ns"]) > int(before["inference_stats"]["compute_infer"]["ns"])
    assert abs(int(after["last_inference"]) - time.time() * 1000) < 60_000


def test_model_control(client: Any, module: ModuleType) -> None:
    def state() -> str:
        index = as_dict(client.get_model_repository_index())
        models = index if isinstance(index, list) else index["models"]
        return next(each.get("state", "") for each in models if each["name"] == "simple_int8")

    assert state() == "READY"
    client.unload_model("simple_int8")
    deadline = time.monotonic() + 60
    while state() == "READY" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not client.is_model_ready("simple_int8")
    client.load_model("simple_int8")
    assert client.is_model_ready("simple_int8")
    with pytest.raises(InferenceServerException):
        client.load_model("nothing")


def test_load_with_config_and_file(client: Any, repository: Any) -> None:
    model = (repository / "simple" / "1" / "model.onnx").read_bytes()
    config = '{"name": "from_memory", "backend": "onnxruntime", "max_batch_size": 2}'
    client.load_model("from_memory", config=config, files={"file:1/model.onnx": model})
    loaded = as_dict(client.get_model_config("from_memory"))
    assert loaded.get("config", loaded)["max_batch_size"] == 2
    client.unload_model("from_memory")


def test_every_datatype_travels_unchanged(client: Any, module: ModuleType, repository: Any) -> None:
    import ml_dtypes
    import onnx
    from onnx import TensorProto, helper

    rng = np.random.default_rng(3)
    for name, onnx_type in {
        "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16,
        "UINT32": TensorProto.UINT32, "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8,
        "INT16": TensorProto.INT16, "INT32": TensorProto.INT32, "INT64": TensorProto.INT64,
        "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
        "BF16": TensorProto.BFLOAT16, "BYTES": TensorProto.STRING,
    }.items():  # fmt: skip
        tensors = [helper.make_tensor_value_info(each, onnx_type, [2, 3]) for each in ("x", "y")]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        identity = f"identity_{name.lower()}"
        config = f'{{"name": "{identity}", "backend": "onnxruntime", "max_batch_size": 0}}'
        client.load_model(identity, config=config, files={"file:1/model.onnx": model.SerializeToString()})
        if name == "BYTES":
            array = np.array([[b"", b"a", "ü".encode()], [b"long" * 99, b" ", b"\n"]], np.object_)
        elif name == "BF16":
            array = rng.standard_normal((2, 3)).astype(ml_dtypes.bfloat16)
        elif name == "BOOL":
            array = rng.integers(0, 2, (2, 3)).astype(bool)
        else:
            dtype = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}.get(name) or np.dtype(name.lower())
            array = rng.integers(0, 100, (2, 3)).astype(dtype)
        tensor = module.InferInput("x", [2, 3], name)
        tensor.set_data_from_numpy(array)
        result = client.infer(identity, [tensor]).as_numpy("y")
        assert (result == array).all(), name
        client.unload_model(identity)


def test_a_server_has_the_name_that_its_operator_gives(repository: Path) -> None:
    """Triton's own health clients insist on a server called "triton"."""
    with serve(repository, "--model-control-mode=explicit", "--id=triton") as named:
        with tritonclient.http.InferenceServerClient(named.http) as client:
            assert client.get_server_metadata()["name"] == "triton"
        with tritonclient.grpc.InferenceServerClient(named.grpc) as client:
            assert client.get_server_metadata().name == "triton"


def test_a_file_that_no_disk_takes_fails_the_load_alone(client: Any) -> None:
    """The words are those that Triton's model control client looks for."""
    files = {"file:" + "A" * 256: b"a"}
    with pytest.raises(
        InferenceServerException, match="failed to load .* failed to poll from model repository"
    ) as info:
        client.load_model("simple_string", config="{}", files=files)
    assert info.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
    assert client.is_server_live()
    assert client.is_model_ready("simple_string")


def test_a_picture_in_bytes_comes_back_as_it_was(module: ModuleType, client: Any) -> None:
    picture = np.array([[b"\xff\xd8\xff\xe0JFIF\x00", b"", bytes(range(256)), "é".encode()]], np.object_)
    given = module.InferInput("INPUT0", list(picture.shape), "BYTES")
    given.set_data_from_numpy(picture)
    assert client.infer("simple_identity", [given]).as_numpy("OUTPUT0").tolist() == picture.tolist()
