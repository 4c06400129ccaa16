"""KServe over gRPC on a real socket, with tritonclient's clients and with messages that they would not send."""

import asyncio
import queue
from collections.abc import AsyncIterator
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as client_module
import tritonclient.grpc.aio as aio_module
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from support.hand_server import HandServer
from triune.core import errors
from triune.core.errors import UnavailableError
from triune.frontends.kserve.grpc.server import ChannelOptions, GrpcServer
from triune.frontends.limits import Limits
from triune.protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse

INFER = "/inference.GRPCInferenceService/ModelInfer"
VECTOR = np.arange(16, dtype=np.float32).reshape(1, 16)


@pytest.fixture
def server() -> HandServer:
    return HandServer()


@pytest.fixture
async def address(server: HandServer) -> AsyncIterator[str]:
    front_end = GrpcServer(server, port=0, limits=Limits(request_bytes=4 * 2**20))  # type: ignore[arg-type]
    port = await front_end.start()
    yield f"127.0.0.1:{port}"
    await front_end.stop(0)


@pytest.fixture
async def client(address: str) -> AsyncIterator[aio_module.InferenceServerClient]:
    async with aio_module.InferenceServerClient(address) as client:
        yield client


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


def tensor(array: np.ndarray = VECTOR, name: str = "INPUT0") -> client_module.InferInput:
    result = client_module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    result.set_data_from_numpy(array)
    return result


def request_bytes(**fields: Any) -> bytes:
    message = ModelInferRequest(model_name="identity", **fields)
    if not message.inputs:
        message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
        message.raw_input_contents.append(VECTOR.tobytes())
    return message.SerializeToString()


async def test_infer(client: aio_module.InferenceServerClient, server: HandServer) -> None:
    server.parameters = {"seconds": 0.5, "steps": 3, "text": "x", "ok": True}
    outputs = [client_module.InferRequestedOutput("OUTPUT0", class_count=2)]
    result = await client.infer(
        "identity", [tensor()], "2", outputs, "the id", priority=1, timeout=70_000, parameters={"mine": "yes", "n": 4}
    )
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), VECTOR)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("the id", "identity", "2")
    assert response.parameters["seconds"].double_param == 0.5
    assert response.parameters["steps"].int64_param == 3
    request = server.requests[0]
    assert (request.id, request.version, request.priority, request.timeout_us) == ("the id", 2, 1, 70_000)
    assert request.parameters == {"mine": "yes", "n": 4}
    assert request.outputs[0].num_classes == 2


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
async def test_infer_integers(client: aio_module.InferenceServerClient, dtype: str) -> None:
    array = np.array([[0, 1], [1, 0]], dtype)
    result = (await client.infer("identity", [tensor(array)])).as_numpy("OUTPUT0")
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, array)


async def test_infer_half_precision_and_bytes(client: aio_module.InferenceServerClient) -> None:
    half = np.array([1.5, -2], np.float16)
    text = np.array([b"", b"\x00\xff", "日本".encode()], np.object_)
    bfloat = client_module.InferInput("INPUT2", [3], "BF16")
    bfloat.set_data_from_numpy(np.array([1.5, -3, 0], ml_dtypes.bfloat16))
    result = await client.infer("identity", [tensor(half), tensor(text, "INPUT1"), bfloat])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), half)
    assert result.as_numpy("OUTPUT1").tolist() == text.tolist()
    assert result.as_numpy("OUTPUT2").tolist() == [1.5, -3, 0]


async def test_blocking_client_and_callbacks(address: str) -> None:
    def talk() -> tuple[np.ndarray, list[tuple[Any, Any]]]:
        answered: queue.Queue[tuple[Any, Any]] = queue.Queue()
        with client_module.InferenceServerClient(address) as client:
            blocking = client.infer("identity", [tensor()]).as_numpy("OUTPUT0")
            pairs: list[tuple[Any, Any]] = []
            for name in ("identity", "failing"):
                client.async_infer(name, [tensor()], lambda result, error: answered.put((result, error)))
                pairs.append(answered.get(timeout=60))
        return blocking, pairs

    blocking, [(result, no_error), (no_result, error)] = await asyncio.to_thread(talk)
    np.testing.assert_array_equal(blocking, VECTOR)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), VECTOR)
    assert no_error is None
    assert no_result is None
    assert "poison" in str(error)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_compression(client: aio_module.InferenceServerClient, algorithm: str) -> None:
    large = np.zeros((8, 4096), np.float32)
    result = await client.infer("identity", [tensor(large)], compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), large)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidArgumentError, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.NotFoundError, grpc.StatusCode.NOT_FOUND),
        (errors.UnavailableError, grpc.StatusCode.UNAVAILABLE),
        (errors.UnsupportedError, grpc.StatusCode.UNIMPLEMENTED),
        (errors.InternalError, grpc.StatusCode.INTERNAL),
        (errors.AlreadyExistsError, grpc.StatusCode.ALREADY_EXISTS),
        (errors.CancelledError, grpc.StatusCode.CANCELLED),
    ],
)
async def test_error_statuses(
    client: aio_module.InferenceServerClient, server: HandServer, error: type[errors.TriuneError], code: grpc.StatusCode
) -> None:
    server.error = error("what, numbers: 3 > 2, remedy — ¬ ascii\nsecond line")
    with pytest.raises(InferenceServerException) as caught:
        await client.infer("failing", [tensor()])
    assert caught.value.status() == str(code)
    assert caught.value.message() == "what, numbers: 3 > 2, remedy — ¬ ascii\nsecond line"
    assert (await client.infer("identity", [tensor()])).as_numpy("OUTPUT0") is not None


async def test_long_message_of_an_error_arrives(client: aio_module.InferenceServerClient, server: HandServer) -> None:
    server.error = errors.InvalidArgumentError("日" * 100_000)
    with pytest.raises(InferenceServerException, match="日日") as caught:
        await client.infer("failing", [tensor()])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


async def test_defect_is_internal(client: aio_module.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="ModelInfer failed within the server: KeyError") as caught:
        await client.infer("defective", [tensor()])
    assert caught.value.status() == "StatusCode.INTERNAL"


async def test_unknown_model_version_and_method(channel: grpc.aio.Channel) -> None:
    for fields, code in (
        ({"model_version": "9"}, grpc.StatusCode.NOT_FOUND),
        ({"model_version": "one"}, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(INFER)(request_bytes(**fields))
        assert caught.value.code() is code
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/inference.GRPCInferenceService/ModelGuess")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff", b"\x0a\xff\xff\xff\xff\x07", b"\x0a\x02\xff\xfe", request_bytes()[:-1]]
)
async def test_bytes_that_are_no_message(channel: grpc.aio.Channel, data: bytes) -> None:
    infer = channel.unary_unary(INFER)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(data)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a valid ModelInferRequest" in caught.value.details()
    assert ModelInferResponse.FromString(await infer(request_bytes())).model_name == "identity"


async def test_message_above_the_limit(channel: grpc.aio.Channel) -> None:
    infer = channel.unary_unary(INFER)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(b"\0" * (5 * 2**20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(4 * 2**20) in caught.value.details()
    assert await infer(request_bytes())


async def test_its_own_limit_is_the_lower(server: HandServer) -> None:
    limits = Limits(request_bytes=4 * 2**20, grpc_request_bytes=2**20)
    front_end = GrpcServer(server, port=0, limits=limits)  # type: ignore[arg-type]
    port = await front_end.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(INFER)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(b"\0" * (2**20 + 1))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await infer(request_bytes())
    await front_end.stop(0)


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_bomb(channel: grpc.aio.Channel, algorithm: grpc.Compression) -> None:
    """64 MiB of zeros are 64 KiB on the wire; gRPC stops unpacking at the limit."""
    infer = channel.unary_unary(INFER)
    with pytest.raises(grpc.aio.AioRpcError, match="larger than max") as caught:
        await infer(bytes(64 * 2**20), compression=algorithm)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await infer(request_bytes(), compression=algorithm)


async def test_client_cancels(client: aio_module.InferenceServerClient, server: HandServer) -> None:
    call = asyncio.create_task(client.infer("slow", [tensor()], request_id="given up"))
    other = asyncio.create_task(client.infer("slow", [tensor()], request_id="kept"))
    await server.until_waiting(2)
    # Two calls under way at once may arrive in either order.
    place = {request.id: index for index, (request, _) in enumerate(server.waiting)}
    given_up, kept = (server.waiting[place[name]][1] for name in ("given up", "kept"))
    call.cancel()
    await asyncio.wait([given_up], timeout=60)
    assert given_up.cancelled()
    assert not kept.done()
    server.release(place["kept"])
    np.testing.assert_array_equal((await other).as_numpy("OUTPUT0"), VECTOR)


async def test_client_deadline(client: aio_module.InferenceServerClient, server: HandServer) -> None:
    with pytest.raises(InferenceServerException) as caught:
        await client.infer("slow", [tensor()], client_timeout=0.1)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    await asyncio.wait([server.waiting[0][1]], timeout=60)
    assert server.waiting[0][1].cancelled()


async def test_client_goes_away(address: str, server: HandServer) -> None:
    channel = grpc.aio.insecure_channel(address)
    call = channel.unary_unary(INFER)(ModelInferRequest(model_name="slow").SerializeToString())
    await server.until_waiting(1)
    await channel.close()
    await asyncio.wait([server.waiting[0][1]], timeout=60)
    assert server.waiting[0][1].cancelled()
    assert call.done()


async def test_many_at_once(client: aio_module.InferenceServerClient) -> None:
    arrays = [np.full((1, 16), number, np.float32) for number in range(200)]
    results = await asyncio.gather(*(client.infer("identity", [tensor(array)]) for array in arrays))
    for array, result in zip(arrays, results, strict=True):
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


async def test_keepalive_pings_are_welcome(address: str) -> None:
    options = client_module.KeepAliveOptions(
        keepalive_time_ms=20,
        keepalive_timeout_ms=1000,
        keepalive_permit_without_calls=True,
        http2_max_pings_without_data=0,
    )
    async with aio_module.InferenceServerClient(address, keepalive_options=options) as client:
        assert await client.is_server_live()
        await asyncio.sleep(0.5)
        assert await client.is_server_live()


async def test_port_that_is_taken(address: str, server: HandServer) -> None:
    host, port = address.split(":")
    with pytest.raises(UnavailableError, match=f"cannot listen for gRPC on {address}"):
        await GrpcServer(server, host, int(port)).start()  # type: ignore[arg-type]


async def test_stop_lets_requests_finish(server: HandServer) -> None:
    front_end = GrpcServer(server, port=0)  # type: ignore[arg-type]
    address = f"127.0.0.1:{await front_end.start()}"
    async with aio_module.InferenceServerClient(address) as client:
        call = asyncio.create_task(client.infer("slow", [tensor()]))
        await server.until_waiting(1)
        stopping = asyncio.create_task(front_end.stop(600))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        server.release(0)
        np.testing.assert_array_equal((await call).as_numpy("OUTPUT0"), VECTOR)
        await asyncio.wait_for(stopping, 60)
        with pytest.raises(InferenceServerException):
            await client.infer("identity", [tensor()])


async def test_stop_cancels_after_the_grace(server: HandServer) -> None:
    front_end = GrpcServer(server, port=0)  # type: ignore[arg-type]
    address = f"127.0.0.1:{await front_end.start()}"
    async with aio_module.InferenceServerClient(address) as client:
        call = asyncio.create_task(client.infer("slow", [tensor()]))
        await server.until_waiting(1)
        await asyncio.wait_for(front_end.stop(0.05), 60)
        with pytest.raises(InferenceServerException):
            await call
        assert server.waiting[0][1].cancelled()
    await front_end.stop(0)


@pytest.mark.parametrize("num_bytes", [1, 100_000])
@pytest.mark.parametrize(("name", "version"), [("nothing", ""), ("identity", "7")])
async def test_an_unknown_model_is_told_before_what_is_wrong_with_the_request(
    channel: grpc.aio.Channel, name: str, version: str, num_bytes: int
) -> None:
    message = ModelInferRequest(model_name=name, model_version=version)
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
    message.raw_input_contents.append(bytes(num_bytes))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await channel.unary_unary(INFER)(message.SerializeToString())
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_tensor_of_another_size_is_told_in_tritons_words(channel: grpc.aio.Channel) -> None:
    message = ModelInferRequest(model_name="identity")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
    message.raw_input_contents.append(bytes(60))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await channel.unary_unary(INFER)(message.SerializeToString())
    details = failure.value.details() or ""
    assert details.startswith("input byte size mismatch for input 'INPUT0' for model 'identity'. Expected 64, got 60")


async def test_refuses_a_message_of_many_tensors_and_takes_one_of_some(channel: grpc.aio.Channel) -> None:
    # Beyond 64 fields a message is taken apart in a thread.
    name = b"\x0a\x10" + b"x" * 16
    field = b"\x2a" + len(name).to_bytes() + name
    for count, reason in ((5000, "more than 4096 inputs"), (1000, "1001 inputs but 1 raw_input_contents")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(INFER)(request_bytes() + field * count)
        assert reason in (caught.value.details() or "")


async def test_without_the_relay_clients_reach_the_library_itself(
    server: HandServer, caplog: pytest.LogCaptureFixture
) -> None:
    options = ChannelOptions(has_relay=False)
    front_end = GrpcServer(server, port=0, channel=options)  # type: ignore[arg-type]
    port = await front_end.start()
    assert "let only trusted clients reach it" in caplog.text
    async with aio_module.InferenceServerClient(f"127.0.0.1:{port}") as client:
        result = await client.infer("identity", [tensor()])
        assert np.array_equal(result.as_numpy("OUTPUT0"), VECTOR)
    other = GrpcServer(server, port=port, channel=options)  # type: ignore[arg-type]
    with pytest.raises(UnavailableError, match=f"cannot listen for gRPC on 127.0.0.1:{port}.*choose another port"):
        await other.start()
    await front_end.stop(0)
