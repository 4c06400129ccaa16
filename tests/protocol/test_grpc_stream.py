"""ModelStreamInfer on a real socket: order, errors within the stream, decoupled models, endings."""

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client_module
import tritonclient.grpc.aio as aio_module

from support.hand_server import HandServer
from triune.frontends.kserve.grpc import stream as grpc_stream
from triune.frontends.kserve.grpc.server import GrpcServer
from triune.protos.grpc_service_pb2 import InferParameter, ModelInferRequest, ModelStreamInferResponse

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
Call = grpc.aio.StreamStreamCall


@pytest.fixture
def server() -> HandServer:
    return HandServer()


@pytest.fixture
async def front_end(server: HandServer) -> AsyncIterator[GrpcServer]:
    front_end = GrpcServer(server, port=0)  # type: ignore[arg-type]
    yield front_end
    await front_end.stop(0)


@pytest.fixture
async def address(front_end: GrpcServer) -> str:
    return f"127.0.0.1:{await front_end.start()}"


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


def opened(channel: grpc.aio.Channel, **headers: str) -> Call:
    return channel.stream_stream(
        STREAM,
        request_serializer=ModelInferRequest.SerializeToString,
        response_deserializer=ModelStreamInferResponse.FromString,
    )(metadata=tuple(headers.items()))


def request(model: str, request_id: str = "", value: float = 0, **parameters: bool) -> ModelInferRequest:
    message = ModelInferRequest(model_name=model, id=request_id)
    for name, each in parameters.items():
        message.parameters[name].CopyFrom(InferParameter(bool_param=each))
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 1])
    message.raw_input_contents.append(np.float32(value).tobytes())
    return message


def repeat(values: list[int], request_id: str = "r", **parameters: bool) -> ModelInferRequest:
    message = ModelInferRequest(model_name="repeat", id=request_id)
    for name, each in parameters.items():
        message.parameters[name].CopyFrom(InferParameter(bool_param=each))
    message.inputs.add(name="IN", datatype="INT32", shape=[len(values)])
    message.raw_input_contents.append(np.array(values, np.int32).tobytes())
    return message


async def read(call: Call) -> ModelStreamInferResponse:
    response = await asyncio.wait_for(call.read(), 60)
    assert response is not grpc.aio.EOF, "the stream ended"
    return response


def is_final(response: ModelStreamInferResponse) -> bool:
    parameter = response.infer_response.parameters["triton_final_response"]
    assert parameter.WhichOneof("parameter_choice") == "bool_param"
    return parameter.bool_param


async def assert_ends(call: Call) -> None:
    await call.done_writing()
    assert await asyncio.wait_for(call.read(), 60) is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_answers_take_the_order_of_the_requests(channel: grpc.aio.Channel, server: HandServer) -> None:
    call = opened(channel)
    for number in range(3):
        await call.write(request("slow", f"slow {number}", number))
    await call.write(request("identity", "quick", 9))
    await server.until_waiting(3)
    server.release(2, 1)
    early = asyncio.ensure_future(call.read())
    await asyncio.sleep(0.05)
    assert not early.done(), "an answer overtook the one before it"
    server.release(0)
    responses = [await early, *[await read(call) for _ in range(3)]]
    assert [each.infer_response.id for each in responses] == ["slow 0", "slow 1", "slow 2", "quick"]
    values = [np.frombuffer(each.infer_response.raw_output_contents[0], np.float32)[0] for each in responses]
    assert values == [0, 1, 2, 9]
    assert all(is_final(each) for each in responses)
    await assert_ends(call)


async def test_errors_leave_the_stream_open(channel: grpc.aio.Channel) -> None:
    call = opened(channel)
    wrong_shape = request("identity", "shape")
    wrong_shape.inputs[0].shape[:] = [7]
    for message in (
        request("nothing", "unknown"),
        request("failing", "failing"),
        wrong_shape,
        request("defective", "defect"),
        request("identity", "parameter", triton_unheard_of=True),
        request("identity", "good", 4),
    ):
        await call.write(message)
    responses = [await read(call) for _ in range(6)]
    assert [each.infer_response.id for each in responses] == [
        "unknown",
        "failing",
        "shape",
        "defect",
        "parameter",
        "good",
    ]
    for response, expected in zip(
        responses, ("unknown model", "poison", "Expected 28", "KeyError", "reserved", ""), strict=True
    ):
        assert expected in response.error_message
        assert bool(response.error_message) == bool(expected)
        assert is_final(response)
    await assert_ends(call)


async def test_bytes_that_are_no_message_leave_the_stream_open(channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream(STREAM, response_deserializer=ModelStreamInferResponse.FromString)()
    await call.write(b"\xff\xff\xff")
    await call.write(request("identity", "good").SerializeToString())
    assert "not a valid ModelInferRequest" in (await read(call)).error_message
    assert (await read(call)).infer_response.id == "good"
    await assert_ends(call)


async def test_error_ends_the_stream_of_a_client_that_asks_for_it(
    channel: grpc.aio.Channel, server: HandServer
) -> None:
    call = opened(channel, triton_grpc_error="true")
    await call.write(request("identity", "good"))
    assert (await read(call)).infer_response.id == "good"
    await call.write(request("failing", "failing"))
    # The stream may have ended by now.
    with contextlib.suppress(grpc.aio.AioRpcError):
        await call.write(request("slow", "never answered"))
    with pytest.raises(grpc.aio.AioRpcError, match="poison") as caught:
        await asyncio.wait_for(call.read(), 60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert all(future.cancelled() for _, future in server.waiting)


async def test_decoupled(channel: grpc.aio.Channel, server: HandServer) -> None:
    call = opened(channel)
    await call.write(repeat([5, 6, 7]))
    responses = [await read(call) for _ in range(3)]
    assert [int.from_bytes(each.infer_response.raw_output_contents[0], "little") for each in responses] == [5, 6, 7]
    assert {each.infer_response.id for each in responses} == {"r"}
    assert not any(is_final(each) for each in responses)
    await assert_ends(call)
    assert server.num_open_streams == 0


@pytest.mark.parametrize("says_final", [True, False])
@pytest.mark.parametrize("values", [[], [1, 2]])
async def test_empty_final_response(channel: grpc.aio.Channel, values: list[int], says_final: bool) -> None:
    call = opened(channel)
    await call.write(repeat(values, says_final=says_final, triton_enable_empty_final_response=True))
    for _ in values:
        assert not is_final(await read(call))
    last = await read(call)
    assert is_final(last)
    assert last.infer_response.id == "r"
    assert last.infer_response.model_name == "repeat"
    assert not last.infer_response.outputs
    await assert_ends(call)
    # Without the parameter the empty one stays away.
    call = opened(channel)
    await call.write(repeat(values, says_final=says_final))
    for _ in values:
        assert not is_final(await read(call))
    await assert_ends(call)


async def test_decoupled_error(channel: grpc.aio.Channel, server: HandServer) -> None:
    call = opened(channel)
    await call.write(repeat([1, -1, 2]))
    assert not is_final(await read(call))
    error = await read(call)
    assert "-1 cannot be repeated" in error.error_message
    assert error.infer_response.id == "r"
    await assert_ends(call)
    assert server.num_open_streams == 0


async def test_decoupled_answers_pass_the_others(channel: grpc.aio.Channel, server: HandServer) -> None:
    call = opened(channel)
    await call.write(request("slow", "slow"))
    await call.write(repeat([1, 2]))
    assert [(await read(call)).infer_response.id for _ in range(2)] == ["r", "r"]
    server.release(0)
    assert (await read(call)).infer_response.id == "slow"
    await assert_ends(call)


async def test_client_cancels(channel: grpc.aio.Channel, server: HandServer) -> None:
    call = opened(channel)
    await call.write(request("slow"))
    await call.write(request("slow"))
    await call.write(repeat(list(range(10_000))))
    await server.until_waiting(2)
    await read(call)
    assert server.num_open_streams == 1
    call.cancel()
    await asyncio.wait([future for _, future in server.waiting], timeout=60)
    assert all(future.cancelled() for _, future in server.waiting)
    await asyncio.wait_for(server.all_streams_closed.wait(), 60)
    assert server.num_open_streams == 0


async def test_requests_under_way_are_bounded(
    channel: grpc.aio.Channel, server: HandServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_stream, "MAX_PENDING_REQUESTS", 4)
    call = opened(channel)
    for number in range(10):
        await call.write(request("slow", str(number)))
    await server.until_waiting(4)
    await asyncio.sleep(0.05)
    assert len(server.waiting) == 4
    for number in range(10):
        await server.until_waiting(number + 1)
        server.release(number)
    assert [(await read(call)).infer_response.id for _ in range(10)] == [str(number) for number in range(10)]
    await assert_ends(call)


async def test_stop_answers_what_was_read(channel: grpc.aio.Channel, front_end: GrpcServer, server: HandServer) -> None:
    idle, busy = opened(channel), opened(channel)
    await idle.write(request("identity"))
    await read(idle)
    await busy.write(request("slow", "under way"))
    await server.until_waiting(1)
    stopping = asyncio.create_task(front_end.stop(600))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(idle.read(), 60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not stopping.done()
    server.release(0)
    assert (await read(busy)).infer_response.id == "under way"
    with pytest.raises(grpc.aio.AioRpcError, match="stopping"):
        await asyncio.wait_for(busy.read(), 60)
    await asyncio.wait_for(stopping, 60)


async def test_many_requests_and_streams(channel: grpc.aio.Channel) -> None:
    async def talk(number: int) -> list[str]:
        call = opened(channel)

        async def send() -> None:
            for index in range(100):
                await call.write(request("identity", f"{number}-{index}"))
            await call.done_writing()

        sending = asyncio.create_task(send())
        ids = [each.infer_response.id async for each in call]
        await sending
        return ids

    for number, ids in enumerate(await asyncio.gather(*(talk(number) for number in range(5)))):
        assert ids == [f"{number}-{index}" for index in range(100)]


async def test_tritonclient_stream(address: str) -> None:
    def talk() -> list[tuple[Any, Any]]:
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        with client_module.InferenceServerClient(address) as client:
            client.start_stream(lambda result, error: answers.put((result, error)))
            values = client_module.InferInput("IN", [2], "INT32")
            values.set_data_from_numpy(np.array([3, 4], np.int32))
            client.async_stream_infer("repeat", [values], request_id="a", enable_empty_final_response=True)
            results = [answers.get(timeout=60) for _ in range(3)]
            client.async_stream_infer("nothing", [values])
            client.async_stream_infer("identity", [values], request_id="b")
            results += [answers.get(timeout=60) for _ in range(2)]
            client.stop_stream()
        return results

    results = await asyncio.to_thread(talk)
    finals = [
        result.get_response().parameters["triton_final_response"].bool_param
        for result, error in results
        if error is None
    ]
    assert finals == [False, False, True, True]
    assert [result.as_numpy("OUT")[0] for result, _ in results[:2]] == [3, 4]
    assert "unknown model" in str(results[3][1])
    assert results[4][0].as_numpy("IN").tolist() == [3, 4]


async def test_tritonclient_aio_stream(address: str) -> None:
    values = client_module.InferInput("INPUT0", [1, 2], "FP32")
    values.set_data_from_numpy(np.array([[3, 4]], np.float32))

    async def inputs() -> AsyncIterator[dict[str, Any]]:
        for number in range(3):
            yield {"model_name": "identity", "inputs": [values], "request_id": str(number)}
            await asyncio.sleep(0)

    async with aio_module.InferenceServerClient(address) as client:
        ids = []
        async for result, error in client.stream_infer(inputs()):
            assert error is None
            ids.append(result.get_response().id)
    assert ids == ["0", "1", "2"]
