"""uvicorn inside an event loop that somebody else runs."""

import asyncio
import contextlib
import errno
import math
import socket
from collections.abc import Generator
from typing import Protocol, cast

import uvicorn

from triune.core.addresses import format_address
from triune.core.errors import UnavailableError

_TICKS_PER_CHECK = 2
_LOOPBACKS = ("127.0.0.1", "::1")
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

BACKLOG = 2048
"""Connections that may wait to be accepted."""


class Connection(Protocol):
    """What a connection of an embedded server has beside uvicorn's own methods."""

    def check_deadline(self, now: float) -> None:
        """End what is silent for too long; `now` is the loop's time."""
        ...


class EmbeddedServer(uvicorn.Server):
    """A uvicorn that leaves signals to the process, says when it listens, and takes port 0. Opened and closed once."""

    def __init__(self, config: uvicorn.Config) -> None:
        """Args:
        config: the app and the protocol, whose connections are `Connection`s; host and port are given to `open`.
        """
        super().__init__(config)
        self._is_listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int, *, purpose: str, is_shared: bool = False) -> int:
        """Listen on an address, for `purpose` ("HTTP") as errors tell it; other servers too if it `is_shared`.

        Returns:
            the port.

        Raises:
            UnavailableError: the address is taken, or is not this machine's.
        """
        listeners = listen(host, port, purpose=purpose, is_shared=is_shared)
        self._task = asyncio.create_task(self.serve(sockets=listeners))
        ready = asyncio.create_task(self._is_listening.wait())
        await asyncio.wait((self._task, ready), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            self._task.result()
        bound: int = listeners[0].getsockname()[1]
        return bound

    async def close(self, grace_seconds: float) -> None:
        """Take no more connections, and give requests under way `grace_seconds` to finish."""
        if self._task is None:
            return
        self.config.timeout_graceful_shutdown = max(1, math.ceil(grace_seconds))
        self.should_exit = True
        await self._task
        self._task = None

    async def on_tick(self, counter: int) -> bool:
        """Check the connections' deadlines. Called ten times a second."""
        if counter % _TICKS_PER_CHECK == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                cast(Connection, connection).check_deadline(now)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._is_listening.set()


def listen(host: str, port: int, *, purpose: str, is_shared: bool = False) -> list[socket.socket]:
    """Listening TCP sockets of one port, one for each address that `host` has here; `port` 0 takes a free one.

    `localhost` has two where the machine speaks IPv6: clients try either first.

    Args:
        host: a name or an address.
        port: the port.
        purpose: what errors call it.
        is_shared: other servers that say so too may listen on the same port.

    Raises:
        UnavailableError: the address is taken, or is not this machine's.
    """
    listeners: list[socket.socket] = []
    failure: OSError | None = None
    try:
        for family, address in _addresses(host, port):
            bound = listeners[0].getsockname()[1] if listeners else port
            try:
                listeners.append(_listen(family, (address[0], bound, *address[2:]), is_shared=is_shared))
            except OSError as error:
                # A name may have addresses of a family that this machine does not speak.
                if error.errno not in _NOT_HERE:
                    raise
                failure = error
    except OSError as error:
        failure = error
        for listener in listeners:
            listener.close()
        listeners.clear()
    if not listeners:
        reason = (failure and failure.strerror) or failure or "it has no address"
        raise UnavailableError(
            f"cannot listen for {purpose} on {format_address(host, port)}: {reason}; choose another port or host"
        ) from failure
    return listeners


def num_addresses(host: str) -> int:
    """How many addresses `host` has here; 1 where that is not known, which whoever listens there is told."""
    try:
        return len(_addresses(host, 0))
    except OSError:
        return 1


def _addresses(host: str, port: int) -> dict[tuple[int, tuple[object, ...]], None]:
    """Families and addresses of a host, in order. `localhost` is both loopbacks (RFC 6761), whatever the hosts file."""
    names = _LOOPBACKS if host.lower() == "localhost" else (host,)
    found = [each for name in names for each in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]
    return dict.fromkeys((int(family), address) for family, _, _, _, address in found)


def _listen(family: int, address: tuple[object, ...], *, is_shared: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
