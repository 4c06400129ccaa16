"""What one gRPC connection sends without end, or in odd pieces, is no other connection's concern."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import grpc.aio
import pytest

from support.hand_server import HandServer
from support.http2 import (
    CONTINUATION,
    DATA,
    EMPTY_MESSAGE,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    Http2,
    frame,
    head_of,
    literal,
    reset,
)
from triune.frontends.kserve.grpc.relay.turns import NUM_ENDED
from triune.frontends.kserve.grpc.server import GrpcServer
from triune.frontends.limits import Limits
from triune.protos.grpc_service_pb2 import ServerLiveResponse

LIVE = "/inference.GRPCInferenceService/ServerLive"
ANSWER = EMPTY_MESSAGE[:4] + b"\x02" + ServerLiveResponse(live=True).SerializeToString()
CALM = (0xB).to_bytes(4)

Start = Callable[..., "asyncio.Future[int]"]


@pytest.fixture
def server() -> HandServer:
    return HandServer()


@pytest.fixture
async def start(server: HandServer) -> AsyncIterator[Start]:
    """Starts a front end with limits."""
    started: list[GrpcServer] = []

    async def begin(**limits: float) -> int:
        started.append(GrpcServer(server, port=0, limits=replace(Limits(), **limits)))  # type: ignore[arg-type]
        return await started[-1].start()

    yield lambda **limits: asyncio.ensure_future(begin(**limits))
    for each in started:
        await each.stop(0)


def streams() -> Iterator[int]:
    return itertools.count(1, 2)


def call(stream: int, method: str = "ServerLive", flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, head_of(method))


def message(stream: int) -> bytes:
    return frame(DATA, END_STREAM, stream, EMPTY_MESSAGE)


FLOODS = {
    "opened and reset": (call(each) + reset(each) for each in streams()),
    "asked and reset": (call(each) + message(each) + reset(each) for each in streams()),
    "opened": (call(each) for each in streams()),
    "streams opened": (call(each, "ModelStreamInfer") for each in streams()),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_who_floods_is_sent_away_and_others_are_answered(start: Start, flood: str) -> None:
    port = await start(streams=50)
    flooding = await Http2.open(port)
    sending = asyncio.create_task(flooding.send_until_closed(FLOODS[flood]))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        live = channel.unary_unary(LIVE)
        num_answered = 0
        while not sending.done() or num_answered < 20:
            assert ServerLiveResponse.FromString(await live(b"", timeout=30)).live
            num_answered += 1
    parting = await sending
    assert parting[4:8] == CALM
    assert parting[8:] == b"too many calls without an answer, or too many small frames"
    await flooding.wire.close()


async def test_small_frames_are_read_slowly_and_others_are_answered(start: Start) -> None:
    port = await start(frames_per_second=10)
    flooding = await Http2.open(port)
    await flooding.wire.send(frame(PING, 0, 0, bytes(8)) * 5000)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await channel.unary_unary(LIVE)(b"", timeout=60)
    num_answered = 0
    # Of a server that read them as they come all would be answered at once.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            while num_answered < 5000:
                num_answered += (await flooding.read())[0] == PING
    assert num_answered < 5000
    await flooding.wire.close()


async def test_a_head_that_names_a_large_header_thousands_of_times(start: Start) -> None:
    port = await start()
    connection = await Http2.open(port)
    # 4,000 bytes, which both ends remember as number 62.
    large = b"\x40\x03big\x7f\xa1\x1e" + b"v" * 4000
    await connection.wire.send(frame(HEADERS, END_HEADERS, 1, head_of("ServerLive") + large), message(1))
    assert await connection.answer(1) == ANSWER
    await connection.wire.send(frame(HEADERS, END_HEADERS, 3, head_of("ServerLive") + b"\xbe" * 1000))
    parting = await connection.until(GOAWAY, 0)
    assert b"headers" in parting[1]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await channel.unary_unary(LIVE)(b"", timeout=60)
    await connection.wire.close()


async def test_no_connection_takes_all_calls(start: Start) -> None:
    port = await start(calls=9)
    first, second = await Http2.open(port), await Http2.open(port)
    for each in itertools.islice(streams(), 6):
        await first.wire.send(call(each))
    assert await first.until(RESET, 11) == (0, CALM), "of nine, five are its share: as many as were left, and one"
    await second.wire.send(call(1), call(3), call(5))
    assert await second.until(RESET, 5) == (0, CALM)
    for each in (1, 3):
        await second.wire.send(message(each))
        assert await second.answer(each) == ANSWER
    await first.wire.send(message(1))
    assert await first.answer(1) == ANSWER
    await first.wire.send(call(13), message(13))
    assert await first.answer(13) == ANSWER
    for each in (first, second):
        await each.wire.close()


async def test_a_refused_call_leaves_the_tables_of_headers_equal(start: Start) -> None:
    connection = await Http2.open(await start(calls=2))
    method = literal(":path", "/inference.GRPCInferenceService/ServerLive", is_indexed=True)
    named = head_of("ServerLive").replace(literal(":path", LIVE), method)
    known = head_of("ServerLive").replace(literal(":path", LIVE), bytes([0x80 | 62]))
    await connection.wire.send(call(1), frame(HEADERS, END_HEADERS, 3, named))
    assert await connection.until(RESET, 3) == (0, CALM)
    await connection.wire.send(message(1))
    assert await connection.answer(1) == ANSWER
    await connection.wire.send(frame(HEADERS, END_HEADERS, 5, known), message(5))
    assert await connection.answer(5) == ANSWER
    await connection.wire.close()


def streams_served() -> list[str]:
    return [name for name in (each.get_name() for each in asyncio.all_tasks()) if "ModelStreamInfer" in name]


async def test_calls_of_a_client_that_leaves_are_cancelled(start: Start) -> None:
    port = await start()
    connection = await Http2.open(port)
    for each in itertools.islice(streams(), 40):
        await connection.wire.send(call(each, "ModelStreamInfer"))
    await connection.wire.send(call(81), message(81))
    assert await connection.answer(81) == ANSWER
    assert len(streams_served()) == 40
    # In the midst of a frame.
    await connection.wire.send(message(1)[:-3])
    await connection.wire.close()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        while streams_served():
            assert await channel.unary_unary(LIVE)(b"", timeout=30)


@pytest.mark.parametrize("num_bytes", [1, 7, 100])
async def test_pieces(start: Start, num_bytes: int) -> None:
    connection = await Http2.open(await start())
    block = head_of("ServerLive", literal("a", "b" * 100))
    continued = [
        frame(HEADERS, 0, 3, block[:50]),
        frame(CONTINUATION, 0, 3),
        frame(CONTINUATION, 0, 3, block[50:90]),
        frame(CONTINUATION, END_HEADERS, 3, block[90:]),
    ]
    text = b"".join([call(1), message(1), *continued, message(3)])
    for start_at in range(0, len(text), num_bytes):
        await connection.wire.send(text[start_at : start_at + num_bytes])
        await asyncio.sleep(0)
    assert {await connection.answer(1), await connection.answer(3)} == {ANSWER}
    await connection.wire.close()


@pytest.mark.parametrize(
    "continued",
    [
        (frame(CONTINUATION, 0, 1) for _ in itertools.count()),
        (frame(CONTINUATION, 0, 1, literal("a", "b" * 100) * 100) for _ in itertools.count()),
    ],
    ids=["empty", "large"],
)
async def test_headers_without_end_close_the_connection(start: Start, continued: Iterator[bytes]) -> None:
    port = await start()
    connection = await Http2.open(port)
    await connection.wire.send(frame(HEADERS, 0, 1, head_of("ServerLive")))
    assert await connection.send_until_closed(continued) == b""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await channel.unary_unary(LIVE)(b"", timeout=30)
    await connection.wire.close()


async def test_a_call_that_is_ended_early_takes_no_one_elses_turn(start: Start) -> None:
    connection = await Http2.open(await start())
    # gRPC's library refuses the first ones, of which it then says nothing.
    for each in itertools.islice(streams(), 30):
        await connection.wire.send(call(each, "").replace(b"application/grpc", b"application/none"), reset(each))
    await connection.wire.send(call(101), message(101))
    assert await connection.answer(101) == ANSWER
    await connection.wire.close()


ASKING = PREFACE + frame(SETTINGS, 0, 0, b"") + call(1) + message(1)
LEAVING = {
    "leaves": ASKING,
    "resets and leaves": ASKING + reset(1),
    "has no time": ASKING.replace(head_of("ServerLive"), head_of("ServerLive", literal("grpc-timeout", "1n"))),
    "makes a connection error": ASKING + frame(CONTINUATION, END_HEADERS, 1, b""),
}


@pytest.mark.parametrize("kind", LEAVING)
async def test_who_opens_connections_and_ends_them_cancels_no_ones_calls(start: Start, kind: str) -> None:
    port = await start()

    def leave() -> None:
        for _ in range(500):
            with socket.create_connection(("127.0.0.1", port)) as connection, contextlib.suppress(ConnectionError):
                connection.sendall(LEAVING[kind])
                while "error" in kind and connection.recv(4096):
                    pass

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        live = channel.unary_unary(LIVE)
        assert ServerLiveResponse.FromString(await live(b"", timeout=30)).live
        leaving = asyncio.gather(*(asyncio.to_thread(leave) for _ in range(4)))
        num_answered = 0
        while not leaving.done() or num_answered < 20:
            assert ServerLiveResponse.FromString(await live(b"", timeout=30)).live
            num_answered += 1
        await leaving


async def test_a_new_client_is_answered_after_many_have_left(start: Start) -> None:
    port = await start()
    left = [await Http2.open(port) for _ in range(4 * NUM_ENDED)]
    for each in left:
        await each.wire.send(call(1))
        each.wire.writer.transport.abort()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await channel.unary_unary(LIVE)(b"", timeout=60)
