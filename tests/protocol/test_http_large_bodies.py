"""Bodies that are read straight to their place, on uvloop and on asyncio's own loop: the same answers as any other."""

import asyncio
import gzip
from collections.abc import Iterator
from typing import cast

import numpy as np
import psutil
import pytest
import uvloop

from support.hand_server import HandServer
from support.http_thread import serve_in_thread
from support.wire import Wire, binary_infer, head, infer, post
from triune.frontends.kserve.http.receiver import DIRECT_BYTES
from triune.frontends.limits import Limits

LARGE = np.random.default_rng(0).random((1, 150528), np.float32)
HUGE = np.random.default_rng(1).random((1, 6 << 20), np.float32)


@pytest.fixture
def server() -> HandServer:
    return HandServer()


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def port(server: HandServer, request: pytest.FixtureRequest) -> Iterator[int]:
    limits = Limits(request_bytes=64 << 20, receive_seconds=2, idle_seconds=30, send_seconds=30, linger_seconds=0.2)
    with serve_in_thread(server, limits, request.param) as port:
        yield port


@pytest.fixture
async def wire(port: int) -> Wire:
    return await Wire.open(port)


def data_of(answer: object) -> bytes:
    body, headers = answer.body, answer.headers  # type: ignore[attr-defined]
    return cast(bytes, body[int(headers["inference-header-content-length"]) :])


async def test_a_large_body_arrives_whole_and_aligned(wire: Wire, server: HandServer) -> None:
    answer = await wire.ask(binary_infer(LARGE.tobytes()))
    assert data_of(answer) == LARGE.tobytes()
    array = server.requests[0].inputs["INPUT0"]
    assert array.ctypes.data % 64 == 0
    assert not array.flags.writeable


async def test_requests_alternate_between_large_and_small_on_one_connection(wire: Wire) -> None:
    for _ in range(3):
        assert data_of(await wire.ask(binary_infer(LARGE.tobytes()))) == LARGE.tobytes()
        assert (await wire.ask(infer(id="small"))).json["id"] == "small"
        assert (await wire.ask(head("GET", "/v2/health/live", {"Host": "x"}))).status == 200


async def test_large_bodies_may_be_pipelined(wire: Wire) -> None:
    requests = [
        binary_infer(LARGE.tobytes(), id="a"),
        infer(id="b"),
        binary_infer(HUGE.tobytes(), id="c"),
        infer(id="d"),
    ]
    sending = asyncio.create_task(wire.send(*requests))
    answers = [await wire.answer() for _ in requests]
    await sending
    assert [answer.json["id"] for answer in answers] == ["a", "b", "c", "d"]
    assert data_of(answers[2]) == HUGE.tobytes()


async def test_a_large_body_behind_a_slow_request_waits_its_turn(wire: Wire, server: HandServer) -> None:
    sending = asyncio.create_task(wire.send(infer("slow", id="a"), binary_infer(HUGE.tobytes(), id="b")))
    while not server.waiting:
        await asyncio.sleep(0.01)
    _, future = server.waiting[0]
    future.get_loop().call_soon_threadsafe(server.release, 0)
    answers = [await wire.answer() for _ in range(2)]
    await sending
    assert [answer.json["id"] for answer in answers] == ["a", "b"]
    assert data_of(answers[1]) == HUGE.tobytes()


@pytest.mark.parametrize("piece", [1000, DIRECT_BYTES - 1, DIRECT_BYTES, DIRECT_BYTES + 1, 300_000])
async def test_pieces_of_any_size_make_the_same_body(wire: Wire, piece: int) -> None:
    request = binary_infer(LARGE.tobytes())
    for begin in range(0, len(request), piece):
        await wire.send(request[begin : begin + piece])
        await asyncio.sleep(0)
    assert data_of(await wire.answer()) == LARGE.tobytes()


async def test_the_head_may_come_alone_and_ask_whether_to_go_on(wire: Wire) -> None:
    request = binary_infer(LARGE.tobytes())
    cut = request.index(b"\r\n\r\n")
    await wire.send(request[:cut] + b"\r\nExpect: 100-continue\r\n\r\n")
    assert (await wire.answer()).status == 100
    await wire.send(request[cut + 4 :])
    assert data_of(await wire.answer()) == LARGE.tobytes()


async def test_a_large_body_may_be_compressed(wire: Wire) -> None:
    request = binary_infer(LARGE.tobytes())
    cut = request.index(b"\r\n\r\n") + 4
    size = request[: cut - 4].split(b"Inference-Header-Content-Length: ")[1].split(b"\r\n")[0].decode()
    packed = gzip.compress(request[cut:], 1)
    assert len(packed) > 2 * DIRECT_BYTES
    headers = {"Content-Encoding": "gzip", "Inference-Header-Content-Length": size}
    assert data_of(await wire.ask(post("/v2/models/identity/infer", packed, headers))) == LARGE.tobytes()


async def test_a_client_may_leave_within_a_large_body(port: int, server: HandServer) -> None:
    for part in (0.3, 0.9):
        wire = await Wire.open(port)
        request = binary_infer(HUGE.tobytes())
        await wire.send(request[: int(part * len(request))])
        await wire.close()
    assert (await (await Wire.open(port)).ask(infer())).status == 200
    assert len(server.requests) == 1


async def test_a_large_body_that_stops_arriving_is_refused(wire: Wire, port: int) -> None:
    request = binary_infer(HUGE.tobytes())
    await wire.send(request[: len(request) // 2])
    answer = await wire.answer()
    assert (answer.status, answer.error) == (408, "nothing of the request came for 2 s, the server's limit")
    assert await wire.is_closed()
    assert (await (await Wire.open(port)).ask(infer())).status == 200


async def test_a_claim_of_size_takes_no_memory(port: int) -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    wires = [await Wire.open(port) for _ in range(20)]
    for wire in wires:
        await wire.send(
            head("POST", "/v2/models/identity/infer", {"Host": "x", "Content-Length": str(60 << 20)}) + b"{"
        )
    await asyncio.sleep(0.3)
    assert process.memory_info().rss - before < 50 << 20
    for wire in wires:
        await wire.close()
