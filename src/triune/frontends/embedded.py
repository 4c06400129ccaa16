"""Run uvicorn inside an event loop that is already running."""

import asyncio
import contextlib
import errno
import math
import socket
from collections.abc import Generator
from functools import partial
from typing import Protocol, cast

import uvicorn

from triune.core.addresses import format_address
from triune.core.errors import UnavailableError
from triune.frontends.accepting import Acceptor

_TICKS_PER_CHECK = 2
_LOOPBACKS = ("127.0.0.1", "::1")
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

_BACKLOG = 2048
"""The largest number of connections that wait to be accepted."""


class Connection(Protocol):
    """What the embedded server calls on a connection, in addition to uvicorn's own methods."""

    def check_deadline(self, now: float) -> None:
        """Close the connection if a timeout has passed; `now` is the loop's time, in seconds."""
        ...


class EmbeddedServer(uvicorn.Server):
    """A uvicorn server that leaves signals alone, reports when it listens, and accepts port 0.

    It can be opened and closed only once.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        """Args:
        config: the app and the protocol class, which must implement `Connection`. Its host and port are ignored.
        """
        super().__init__(config)
        self._is_listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int, *, purpose: str, is_shared: bool = False) -> int:
        """Listen on an address.

        Args:
            host: the name or address to listen on.
            port: the port; 0 takes a free one.
            purpose: the name of the protocol in error messages, "HTTP" for example.
            is_shared: set SO_REUSEPORT, so that other servers can listen on the same port.

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
        """Accept no more connections, and let running requests finish within `grace_seconds`."""
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
        """Do nothing: the process handles signals itself."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and report to `open` that the server listens. uvicorn's own method would accept all waiting
        connections at once.
        """
        protocol = partial(
            self.config.http_protocol_class,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        # uvicorn calls only `close` and `wait_closed` of these objects, which `Acceptor` has.
        self.servers = cast("list[asyncio.Server]", [Acceptor(each, protocol) for each in sockets or ()])
        self.started = True
        self._is_listening.set()


def listen(host: str, port: int, *, purpose: str, is_shared: bool = False) -> list[socket.socket]:
    """Listen on one port of each address of `host` on this machine.

    `localhost` has two addresses (IPv4 and IPv6) where the machine has IPv6: clients may try either first.

    Args:
        host: a name or an address.
        port: the port; 0 takes a free one.
        purpose: the name of the protocol in error messages.
        is_shared: set SO_REUSEPORT, so that other servers can listen on the same port.

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
                # Skip an address that this machine does not have: a name may have IPv6 addresses where IPv6 is off.
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


def _addresses(host: str, port: int) -> dict[tuple[int, tuple[object, ...]], None]:
    """The address families and addresses of a host. `localhost` always has both loopback addresses (RFC 6761)."""
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
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
