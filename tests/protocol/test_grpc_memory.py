"""Large messages over gRPC: off the loop, within the memory budget, which every way out gives back."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

import grpc
import numpy as np
import pytest

from support.hand_server import HandServer
from support.wire import Wire
from triune.core.requests import InferenceResponse
from triune.frontends.bodies.budget import MemoryBudget
from triune.frontends.bodies.offload import Offload
from triune.frontends.kserve.grpc import stream as grpc_stream
from triune.frontends.kserve.grpc.server import GrpcServer
from triune.frontends.limits import Limits
from triune.protos.grpc_service_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
    RepositoryModelLoadRequest,
)

INFER = "/inference.GRPCInferenceService/ModelInfer"
LOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
LARGE = np.random.default_rng(0).standard_normal((2, 50_000), np.float32)
STRINGS = [b"%d" % index for index in range(10_000)]


@pytest.fixture(scope="module")
def offload() -> Iterator[Offload]:
    offload = Offload(num_threads=2, num_processes=1)
    yield offload
    offload.close()


@pytest.fixture
def server() -> HandServer:
    return HandServer()


@pytest.fixture
def budget() -> MemoryBudget:
    return MemoryBudget(64 << 20)


@pytest.fixture
async def channel(server: HandServer, budget: MemoryBudget, offload: Offload) -> AsyncIterator[grpc.aio.Channel]:
    limits = Limits(send_seconds=0.3, connections=4, calls=8)
    front_end = GrpcServer(server, port=0, limits=limits, budget=budget, offload=offload)  # type: ignore[arg-type]
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await front_end.start()}", options=options) as channel:
        yield channel
        await nothing_held(budget)
    await front_end.stop(0)


async def nothing_held(budget: MemoryBudget) -> None:
    async with asyncio.timeout(60):
        while budget.reserved_bytes:
            await asyncio.sleep(0.01)


def raw(array: np.ndarray = LARGE, model: str = "identity") -> ModelInferRequest:
    message = ModelInferRequest(model_name=model, id="large")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    return message


def strings() -> ModelInferRequest:
    message = ModelInferRequest(model_name="identity", id="large")
    message.inputs.add(name="INPUT0", datatype="BYTES", shape=[len(STRINGS)])
    message.raw_input_contents.append(b"".join(len(each).to_bytes(4, "little") + each for each in STRINGS))
    return message


def typed() -> ModelInferRequest:
    message = ModelInferRequest(model_name="identity", id="large")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=LARGE.shape).contents.fp32_contents.extend(LARGE.ravel())
    message.inputs.add(name="INPUT1", datatype="BYTES", shape=[len(STRINGS)]).contents.bytes_contents.extend(STRINGS)
    return message


def infer(channel: grpc.aio.Channel, message: ModelInferRequest) -> grpc.aio.UnaryUnaryCall:
    call = channel.unary_unary(INFER, ModelInferRequest.SerializeToString, ModelInferResponse.FromString)
    return call(message)


def stream(channel: grpc.aio.Channel) -> grpc.aio.StreamStreamCall:
    return channel.stream_stream(STREAM, ModelInferRequest.SerializeToString, ModelStreamInferResponse.FromString)()


@pytest.mark.parametrize("make", [raw, strings, typed])
@pytest.mark.parametrize("is_streaming", [False, True])
async def test_large_messages(channel: grpc.aio.Channel, server: HandServer, make: object, is_streaming: bool) -> None:
    message = make()  # type: ignore[operator]
    if is_streaming:
        call = stream(channel)
        await call.write(message)
        response = (await call.read()).infer_response
        assert response.parameters["triton_final_response"].bool_param
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
    else:
        response = await infer(channel, message)
    assert (response.id, response.model_name) == ("large", "identity")
    inputs = server.requests[0].inputs
    if make is raw or make is typed:
        assert np.array_equal(inputs["INPUT0"], LARGE)
        assert response.raw_output_contents[0] == LARGE.tobytes()
    if make is not raw:
        assert list(inputs.values())[-1].tolist() == STRINGS
        assert response.raw_output_contents[-1] == strings().raw_input_contents[0]
    assert [list(output.shape) for output in response.outputs] == [list(each.shape) for each in inputs.values()]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x2a\x00" * (1 << 20), "more than 4096 inputs, outputs"),
        (b"\x0a\x08identity" + b"\x2a\x00" * 5000, "has 5000 inputs; at most 4096"),
        (raw().SerializeToString()[:-1], "are not a valid ModelInferRequest"),
        (raw().SerializeToString() + b"\xff" * 11, "are not a valid ModelInferRequest"),
        (raw().SerializeToString() + b"\x0b", "are not a valid ModelInferRequest"),
    ],
)
async def test_bombs_and_broken_messages(channel: grpc.aio.Channel, data: bytes, message: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(INFER)(data)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in str(caught.value.details())


@pytest.mark.parametrize("make", [raw, typed])
@pytest.mark.parametrize("place", ["inputs", "outputs"])
async def test_tensors_with_too_many_parameters(channel: grpc.aio.Channel, make: object, place: str) -> None:
    message = make()  # type: ignore[operator]
    tensor = message.inputs[0] if place == "inputs" else message.outputs.add(name="OUTPUT0")
    for number in range(5000):
        tensor.parameters[f"p{number}"].int64_param = number
    with pytest.raises(grpc.aio.AioRpcError, match="has 5000 parameters; at most 4096") as caught:
        await infer(channel, message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("make", [raw, strings, typed])
@pytest.mark.parametrize("is_wrong", [False, True])
async def test_an_unknown_model_is_told_first(channel: grpc.aio.Channel, make: object, is_wrong: bool) -> None:
    message = make()  # type: ignore[operator]
    if is_wrong:
        message.inputs[0].shape[0] += 1
    for model, version in (("nothing", ""), ("identity", "77")):
        message.model_name, message.model_version = model, version
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(channel, message)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_large_file_reaches_the_repository(channel: grpc.aio.Channel, server: HandServer) -> None:
    message = RepositoryModelLoadRequest(model_name="new")
    message.parameters["config"].string_param = "{}"
    message.parameters["file:1/model.onnx"].bytes_param = LARGE.tobytes()
    await channel.unary_unary(LOAD)(message.SerializeToString())
    assert server.loads == [("new", "{}", {"1/model.onnx": LARGE.tobytes()})]


async def test_other_requests_are_small(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(LOAD.replace("Load", "Unload"))(bytes(100_000))
    assert "65536 are the limit" in str(caught.value.details())


async def test_what_waits_holds_memory_and_what_is_too_much_is_refused(
    channel: grpc.aio.Channel, server: HandServer, budget: MemoryBudget
) -> None:
    huge = np.zeros((1, 7 << 20), np.float32)  # and the message of the answer
    waiting = infer(channel, raw(huge, "slow"))
    await server.until_waiting(1)
    assert budget.reserved_bytes >= huge.nbytes
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(channel, raw(huge))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "--max-inflight-bytes" in str(caught.value.details())
    server.release(0)
    await waiting


async def test_a_client_that_cancels_gives_its_memory_back(
    channel: grpc.aio.Channel, server: HandServer, budget: MemoryBudget
) -> None:
    call = infer(channel, raw(model="slow"))
    await server.until_waiting(1)
    assert budget.reserved_bytes >= LARGE.nbytes
    call.cancel()
    await nothing_held(budget)
    many = stream(channel)
    await many.write(raw(model="slow"))
    await server.until_waiting(2)
    assert budget.reserved_bytes >= LARGE.nbytes
    many.cancel()
    await nothing_held(budget)


async def test_a_stream_whose_answers_nobody_reads_ends(
    channel: grpc.aio.Channel, server: HandServer, budget: MemoryBudget
) -> None:
    call = stream(channel)

    async def send() -> None:
        while True:
            await call.write(raw(LARGE[:, :2500]))

    sending = asyncio.create_task(send())
    async with asyncio.timeout(60):
        while budget.reserved_bytes < 1 << 20:
            await asyncio.sleep(0.01)
    await nothing_held(budget)
    sending.cancel()
    call.cancel()


async def test_a_client_that_leaves_without_reading_is_no_defect(
    server: HandServer, offload: Offload, caplog: pytest.LogCaptureFixture
) -> None:
    budget = MemoryBudget(64 << 20)
    front_end = GrpcServer(server, port=0, budget=budget, offload=offload)  # type: ignore[arg-type]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await front_end.start()}") as channel:
        call = stream(channel)
        with contextlib.suppress(TimeoutError):
            # Once the server waits for the client to read, it reads nothing more itself.
            while True:
                await asyncio.wait_for(call.write(raw(LARGE[:, :40_000])), 0.5)
        assert budget.reserved_bytes
        call.cancel()
        await nothing_held(budget)
    await front_end.stop(0)
    assert not [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


async def test_answers_that_wait_for_their_turn_count(
    channel: grpc.aio.Channel, server: HandServer, budget: MemoryBudget
) -> None:
    call = stream(channel)
    # Small requests whose answers are large: none can be written before the first one is answered.
    huge = np.zeros((1, 5 << 20), np.float32)
    for _ in range(5):
        await call.write(raw(LARGE[:, :4], "slow"))
    await server.until_waiting(5)
    for request, future in server.waiting[1:]:
        future.set_result(InferenceResponse(request.model, 2, {"OUTPUT0": huge}, request.id, {}))
    async with asyncio.timeout(60):
        while budget.reserved_bytes < 3 * huge.nbytes:
            await asyncio.sleep(0.01)
    assert budget.reserved_bytes <= budget.limit_bytes
    del server.waiting[1:]
    server.release(0)
    answers = [await call.read() for _ in range(5)]
    assert not answers[0].error_message
    assert "--max-inflight-bytes" in answers[4].error_message, "only three fit into the budget"
    call.cancel()


async def test_a_stream_whose_first_answer_nobody_reads_ends_without_a_word_in_the_log(
    channel: grpc.aio.Channel,
    server: HandServer,
    budget: MemoryBudget,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(grpc_stream, "_SLOWEST_BYTES_PER_SECOND", 1 << 30)
    call = stream(channel)
    huge = np.zeros((1, 2 << 20), np.float32)
    await call.write(raw(huge, "slow"))
    await server.until_waiting(1)
    server.release(0)
    await nothing_held(budget)
    # The status comes after what was written.
    answer = await call.read()
    assert len(answer.infer_response.raw_output_contents[0]) == huge.nbytes
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert "read nothing of its responses" in (await call.details())
    assert not [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


async def test_one_connection_too_many_is_closed(server: HandServer, offload: Offload) -> None:
    front_end = GrpcServer(server, port=0, limits=Limits(connections=2), offload=offload)  # type: ignore[arg-type]
    port = await front_end.start()
    first, second = [await Wire.open(port) for _ in range(2)]
    for each in (first, second):
        assert await each.reader.read(1), "the server's settings"
    surplus = await Wire.open(port)
    assert await surplus.is_closed()
    await first.close()
    async with asyncio.timeout(60), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.unary_unary(INFER.replace("ModelInfer", "ServerLive"))(b"", wait_for_ready=True)
    await second.close()
    await front_end.stop(0)


async def test_one_call_too_many_is_refused(channel: grpc.aio.Channel, server: HandServer) -> None:
    calls = [infer(channel, raw(LARGE[:, :4], "slow")) for _ in range(4)]
    await server.until_waiting(4)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(channel, raw(LARGE[:, :4]))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    server.release(0, 1, 2, 3)
    await asyncio.gather(*calls)
