"""Large bodies, read by the kernel straight to where their tensors stay: no piece is made, parsed or copied."""

import asyncio
from typing import Protocol

import numpy as np

DIRECT_BYTES = 1 << 17
"""A body of which less is to come is not worth the change of protocols, which costs about 10 us."""

_FIRST_BYTES = 1 << 23
"""What a claim of size gets at once. Beyond that the client has to send as much as it wants more."""
_ALIGNMENT = 64
"""What runtimes want of a tensor's address."""
_SCRATCH_BYTES = 1 << 16


class Connection(Protocol):
    """Whose body it is. Everything but the data is passed on to it."""

    def body_received(self, body: memoryview) -> None:
        """The whole body is here, and the transport is the connection's own again."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's protocols have it."""
        ...

    def eof_received(self) -> None:
        """As asyncio's protocols have it."""
        ...

    def pause_writing(self) -> None:
        """As asyncio's protocols have it."""
        ...

    def resume_writing(self) -> None:
        """As asyncio's protocols have it."""
        ...


class BodyReceiver(asyncio.BufferedProtocol):
    """Stands in for a connection while the rest of a body arrives."""

    def __init__(self, connection: Connection, num_bytes: int, header_bytes: int, begun: bytes | bytearray) -> None:
        """Args:
        connection: told when the body is whole.
        num_bytes: the body's size, of which less than this has come.
        header_bytes: how much of it comes before the tensors, the first of which is aligned in memory.
        begun: what has come already.
        """
        self._connection = connection
        self._num_bytes = num_bytes
        self._header_bytes = header_bytes
        self._body = self._allocate(min(num_bytes, max(_FIRST_BYTES, 2 * len(begun))))
        self._body[: len(begun)] = begun
        self._num_received = len(begun)
        self._is_dropped = False

    def drop(self) -> None:
        """Take no more of the body: the request was refused. What still comes is not kept."""
        self._is_dropped = True
        self._body = memoryview(bytearray(_SCRATCH_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go; never beyond the body, behind which another request may follow."""
        if self._is_dropped:
            return self._body
        if self._num_received == len(self._body):
            larger = self._allocate(min(self._num_bytes, 2 * len(self._body)))
            larger[: self._num_received] = self._body
            self._body = larger
        return self._body[self._num_received :]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes are there."""
        if self._is_dropped:
            return
        self._num_received += nbytes
        if self._num_received == self._num_bytes:
            body, self._body = self._body, memoryview(b"")
            self._connection.body_received(body.toreadonly())

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._connection.connection_lost(exc)

    def eof_received(self) -> None:
        """The client sends no more."""
        self._connection.eof_received()

    def pause_writing(self) -> None:
        """An answer before this one is not being taken."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """It is, again."""
        self._connection.resume_writing()

    def _allocate(self, num_bytes: int) -> memoryview:
        # Not cleared: the system gives memory only as it is written to.
        memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
        start = -(memory.ctypes.data + self._header_bytes) % _ALIGNMENT
        return memory[start : start + num_bytes].data
