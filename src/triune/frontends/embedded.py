"""uvicorn inside an event loop that somebody else runs."""

import asyncio
import contextlib
import math
import socket
from collections.abc import Generator

import uvicorn

from triune.core.errors import UnavailableError

BACKLOG = 2048
"""Connections that may wait to be accepted."""


class EmbeddedServer(uvicorn.Server):
    """A uvicorn that leaves signals to the process, says when it listens, and takes port 0. Opened and closed once."""

    def __init__(self, config: uvicorn.Config) -> None:
        """Args:
        config: the app and the protocol; host and port are given to `open`.
        """
        super().__init__(config)
        self._is_listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int, *, purpose: str) -> int:
        """Listen on an address, for `purpose` ("HTTP") as errors tell it.

        Returns:
            the port.

        Raises:
            UnavailableError: the address is taken, or is not this machine's.
        """
        listener = listen(host, port, purpose=purpose)
        self._task = asyncio.create_task(self.serve(sockets=[listener]))
        ready = asyncio.create_task(self._is_listening.wait())
        await asyncio.wait((self._task, ready), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            self._task.result()
        bound: int = listener.getsockname()[1]
        return bound

    async def close(self, grace_seconds: float) -> None:
        """Take no more connections, and give requests under way `grace_seconds` to finish."""
        if self._task is None:
            return
        self.config.timeout_graceful_shutdown = max(1, math.ceil(grace_seconds))
        self.should_exit = True
        await self._task
        self._task = None

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._is_listening.set()


def listen(host: str, port: int, *, purpose: str) -> socket.socket:
    """A listening TCP socket; `port` 0 takes a free one.

    Raises:
        UnavailableError: the address is taken, or is not this machine's.
    """
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        if listener is not None:
            listener.close()
        reason = error.strerror or error
        raise UnavailableError(
            f"cannot listen for {purpose} on {host}:{port}: {reason}; choose another port or host"
        ) from error
    return listener
