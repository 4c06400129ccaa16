"""Large bodies, read by the kernel straight to where their tensors stay: no piece is made, parsed or copied."""

import asyncio
from typing import Protocol

import numpy as np

from triune.frontends.kserve.compression import Body
from triune.frontends.kserve.pacing import Pacer

DIRECT_BYTES = 1 << 17
"""A body of which less is to come is not worth the change of protocols, which costs about 10 us."""

_COUNTED_BYTES = 1 << 20
"""How much may arrive before the connection is told of it again."""
_READ_BYTES = 32 << 10
"""libuv reads up to 32 times in a row for one connection, before it turns to the others."""
_ALIGNMENT = 64
"""What runtimes want of a tensor's address."""
_SCRATCH_BYTES = 1 << 16
_RESUMED_BYTES = 64 << 10
"""What a connection reads in a turn, where many have large bodies."""


class Connection(Protocol):
    """Whose body it is. Everything but the data is passed on to it."""

    def pause_body(self) -> None:
        """Read no more for the moment."""
        ...

    def resume_body(self) -> None:
        """Read on."""
        ...

    def body_grows(self, num_bytes: int) -> None:
        """So much of the body is here."""
        ...

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
    """Stands in for a connection while the rest of a body arrives.

    Attributes:
        num_received: what has come so far.
    """

    def __init__(self, connection: Connection, pacer: Pacer, num_bytes: int, header_bytes: int, begun: Body) -> None:
        """Args:
        connection: told when the body is whole.
        pacer: limits how much all bodies together copy in one iteration of the loop.
        num_bytes: the body's size, of which less than this has come.
        header_bytes: how much of it comes before the tensors, the first of which is aligned in memory.
        begun: what has come already.

        Raises:
            MemoryError: the system does not promise so much. (It gives memory only as it is written to.)
        """
        self._connection = connection
        self._pacer = pacer
        self._num_bytes = num_bytes
        # Not cleared, and so not there yet.
        memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
        start = -(memory.ctypes.data + header_bytes) % _ALIGNMENT
        self._body = memory[start : start + num_bytes].data
        self._body[: len(begun)] = begun
        self.num_received = len(begun)
        self._told_bytes = 0
        self._is_dropped = False

    def drop(self) -> None:
        """Take no more of the body: the request was refused. What still comes is not kept."""
        self._is_dropped = True
        self._body = memoryview(bytearray(_SCRATCH_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go; never beyond the body, behind which another request may follow."""
        if self._is_dropped:
            return self._body
        return self._body[self.num_received : self.num_received + _READ_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes are there."""
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
