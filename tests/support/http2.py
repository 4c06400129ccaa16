"""Writes and reads HTTP/2 frame by frame, to send what no gRPC client sends."""

import asyncio
import struct
from collections.abc import Iterable

from support.wire import Wire

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1

EMPTY_MESSAGE = bytes(5)
"""A gRPC message without fields, not compressed."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: str, value: str, *, is_indexed: bool = False) -> bytes:
    """Encode a literal header. If it is indexed, both ends store it in their tables, from index 62 on."""
    start = b"\x40" if is_indexed else b"\0"
    return start + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def head_of(method: str, *others: bytes) -> bytes:
    """Encode the headers of a call with HPACK."""
    given = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/inference.GRPCInferenceService/{method}",
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join([*(literal(*each) for each in given.items()), *others])


def reset(stream: int) -> bytes:
    return frame(RESET, 0, stream, struct.pack(">I", 8))


class Http2:
    """One HTTP/2 connection whose handshake is done."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    @classmethod
    async def open(cls, port: int) -> "Http2":
        made = cls(await Wire.open(port))
        await made.wire.send(PREFACE, frame(SETTINGS, 0, 0), frame(SETTINGS, ACK, 0))
        return made

    async def read(self) -> tuple[int, int, int, bytes]:
        """Read a frame. Returns its kind, flags, stream and payload."""
        async with asyncio.timeout(30):
            head = await self.wire.reader.readexactly(9)
            payload = await self.wire.reader.readexactly(int.from_bytes(head[:3]))
        return head[3], head[4], int.from_bytes(head[5:]), payload

    async def until(self, kind: int, stream: int = 0) -> tuple[int, bytes]:
        """Read frames until one of this kind comes. Returns its flags and payload."""
        while True:
            found, flags, of, payload = await self.read()
            if (found, of) == (kind, stream):
                return flags, payload

    async def answer(self, stream: int) -> bytes:
        """Read the message that answers a call."""
        _, message = await self.until(DATA, stream)
        return message

    async def send_until_closed(self, units: Iterable[bytes]) -> bytes:
        """Send frames until the server closes the connection. Returns the payload of its GOAWAY frame."""
        parting: list[bytes] = []

        async def listen() -> None:
            while True:
                kind, _, _, payload = await self.read()
                if kind == GOAWAY:
                    parting.append(payload)

        listening = asyncio.create_task(listen())
        try:
            for each in units:
                await self.wire.send(each)
                if listening.done():
                    break
        except ConnectionError:
            pass
        await asyncio.wait([listening])
        assert isinstance(listening.exception(), (asyncio.IncompleteReadError, ConnectionError))
        return parting[0] if parting else b""
