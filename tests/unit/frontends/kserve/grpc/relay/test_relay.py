"""The relay before a library that ends every call without handing it to a handler."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from support.http2 import END_HEADERS, GOAWAY, HEADERS, PING, RESET, Http2, frame, head_of, reset
from triune.frontends.kserve.grpc.relay import frames, sides
from triune.frontends.kserve.grpc.relay.relay import Relay
from triune.frontends.kserve.grpc.relay.turns import NUM_AHEAD, NUM_ENDED
from triune.frontends.limits import Limits


class Library:
    """Stands where gRPC's library does: counts the calls, and either ends each of them or disconnects."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.does_reset = False
        self.does_disconnect = False
        self.payloads: dict[int, bytes] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(frames.PREFACE_BYTES)
            while True:
                head = await reader.readexactly(frames.HEAD_BYTES)
                self.payloads[head[3]] = await reader.readexactly(int.from_bytes(head[:3]))
                if head[3] == HEADERS:
                    self.num_calls += 1
                    if self.does_reset:
                        writer.write(reset(int.from_bytes(head[5:])))
                    if self.does_disconnect:
                        break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
async def port(library: Library, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    # The calls count as in the library for the whole test.
    monkeypatch.setattr(sides, "_ABANDONED_SECONDS", 3600)

    async def listen(address: str) -> None:
        raise AssertionError(address)

    relay = Relay(Limits(), listen)
    server = await asyncio.start_unix_server(library.serve, relay.address.removeprefix("unix:"))
    yield await relay.start("127.0.0.1", 0, is_shared=False)
    await relay.close()
    server.close()


CALL = frame(HEADERS, END_HEADERS, 1, head_of("ServerLive"))


@pytest.mark.parametrize("kind", ["library resets", "library disconnects", "client resets", "client leaves"])
async def test_calls_that_end_before_they_are_handed_over_are_limited(port: int, library: Library, kind: str) -> None:
    library.does_reset = kind == "library resets"
    library.does_disconnect = kind == "library disconnects"
    for _ in range(NUM_ENDED + NUM_AHEAD):
        connection = await Http2.open(port)
        await connection.wire.send(CALL, *([reset(1)] if kind == "client resets" else []))
        if kind == "library resets":
            async with asyncio.timeout(10):
                while library.num_calls < NUM_ENDED:
                    if (await connection.read())[0] == RESET:
                        break
        elif kind == "library disconnects":
            while library.num_calls < NUM_ENDED and await connection.wire.reader.read(100):
                pass
        await asyncio.sleep(0.01)
        await connection.wire.close()
        await asyncio.sleep(0.01)
    assert library.num_calls <= NUM_ENDED + NUM_AHEAD - 1


async def test_the_text_with_which_a_client_parts_is_not_passed_on(port: int, library: Library) -> None:
    connection = await Http2.open(port)
    text = b"a line\n2026-12-03 ERROR another line \x1b[31m\xff"
    await connection.wire.send(frame(PING, 0, 0, bytes(8)), frame(GOAWAY, 0, 0, bytes(8) + text), CALL)
    async with asyncio.timeout(10):
        while not library.num_calls:
            await asyncio.sleep(0.01)
    assert (library.payloads[PING], library.payloads[GOAWAY]) == (bytes(8), bytes(8))
    await connection.wire.close()
