"""Receive large bodies directly into one aligned buffer, without parsing or copying pieces."""

import asyncio
from typing import Protocol

import numpy as np

from triune.frontends.bodies.compression import Body
from triune.frontends.bodies.pacing import Pacer

DIRECT_BYTES = 1 << 17
"""If fewer bytes than this of a body have not arrived yet, they are received by the parser as usual, since switching to
`BodyReceiver` takes about 10 us.
"""

_COUNTED_BYTES = 1 << 20
"""The connection's `body_grows` is called once for this many bytes."""
_READ_BYTES = 32 << 10
"""The size of one read. libuv reads up to 32 times in a row from one connection before it serves the others."""
_ALIGNMENT = 64
"""The alignment of tensors in memory that runtimes expect."""
_SCRATCH_BYTES = 1 << 16
_RESUMED_BYTES = 64 << 10
"""How many bytes a connection counts as having read in the iteration of the event loop in which it goes on after a
pause. The real number is not known before.
"""


class Connection(Protocol):
    """The connection whose request body is received. While the body arrives, the receiver passes the transport's events
    on to it, except data.
    """

    def pause_body(self) -> None:
        """Stop reading the body from the socket."""
        ...

    def resume_body(self) -> None:
        """Go on reading the body from the socket."""
        ...

    def body_grows(self, num_bytes: int) -> None:
        """Called several times while the body arrives. `num_bytes` of it have arrived so far."""
        ...

    def body_received(self, body: memoryview) -> None:
        """Called when the whole body has arrived. The connection is the transport's protocol again."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection was closed (see `asyncio.BaseProtocol`)."""
        ...

    def eof_received(self) -> None:
        """Called when the client will send no more data (see `asyncio.Protocol`)."""
        ...

    def pause_writing(self) -> None:
        """Called when the write buffer is full (see `asyncio.BaseProtocol`)."""
        ...

    def resume_writing(self) -> None:
        """Called when the write buffer has room again (see `asyncio.BaseProtocol`)."""
        ...


class BodyReceiver(asyncio.BufferedProtocol):
    """The protocol of the transport while the rest of a large body arrives.

    Attributes:
        num_received: the number of bytes of the body that have arrived.
    """

    def __init__(self, connection: Connection, pacer: Pacer, num_bytes: int, header_bytes: int, begun: Body) -> None:
        """Args:
        connection: the connection, whose methods are called when bytes arrive and when the body is complete.
        pacer: limits how much all bodies together copy in one iteration of the loop.
        num_bytes: the body's size.
        header_bytes: the size of the JSON before the tensors; the byte after it is aligned in memory.
        begun: the beginning of the body, which has arrived already.

        Raises:
            MemoryError: the system refuses to allocate the buffer.
        """
        self._connection = connection
        self._pacer = pacer
        self._num_bytes = num_bytes
        # Use np.empty, which does not write to the memory: the system allocates each page only when data arrive.
        memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
        start = -(memory.ctypes.data + header_bytes) % _ALIGNMENT
        self._body = memory[start : start + num_bytes].data
        self._body[: len(begun)] = begun
        self.num_received = len(begun)
        self._told_bytes = 0
        self._is_dropped = False

    def drop(self) -> None:
        """Discard the rest of the body, since the request was refused."""
        self._is_dropped = True
        self._body = memoryview(bytearray(_SCRATCH_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer for the next read: the part of the body that has not arrived, and not more, since another request
        may follow.
        """
        if self._is_dropped:
            return self._body
        return self._body[self.num_received : self.num_received + _READ_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        """Called when `nbytes` were read into the buffer: tell the connection how much of the body has arrived."""
        is_spent = self._pacer.spend(nbytes)
        if self._is_dropped:
            if is_spent:
                self._wait()
            return
        self.num_received += nbytes
        if self.num_received >= self._told_bytes:
            self._told_bytes = self.num_received + _COUNTED_BYTES
            self._connection.body_grows(self.num_received)
        if self.num_received == self._num_bytes and not self._is_dropped:
            body, self._body = self._body, memoryview(b"")
            self._connection.body_received(body.toreadonly())
        elif is_spent:
            self._wait()

    def _wait(self) -> None:
        self._connection.pause_body()
        self._pacer.wait(_RESUMED_BYTES, self._connection.resume_body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the event on to the connection."""
        self._connection.connection_lost(exc)

    def eof_received(self) -> None:
        """Pass the event on to the connection."""
        self._connection.eof_received()

    def pause_writing(self) -> None:
        """Pass the event on to the connection: the client is not reading an earlier response."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Pass the event on to the connection."""
        self._connection.resume_writing()
