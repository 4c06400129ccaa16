"""The relay: listens for clients, and connects each of them to gRPC's library."""

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from triune.core.errors import UnavailableError
from triune.core.scratch import HeldFolder
from triune.frontends.accepting import Acceptor
from triune.frontends.embedded import listen
from triune.frontends.kserve.grpc.relay.sides import ClientSide, LibrarySide
from triune.frontends.kserve.grpc.relay.turns import Turns
from triune.frontends.limits import Limits

_log = logging.getLogger(__name__)

_READ_BYTES = 32 << 10
"""The size of one read, and therefore of the data that a connection holds while it waits to open a call. libuv reads up
to 32 times in a row.
"""

# The longest path of the relay's socket, in bytes: on macOS a socket's path has at most 103.
_MAX_PATH_BYTES = 100


class Relay:
    """Passes the bytes of clients on to gRPC's library, and the library's to clients. Runs on the event loop's thread.

    Attributes:
        limits: the limits on connections.
        turns: decides which connection opens the next call. Call its `arrive` when a call reaches its handler.
        num_calls: how many calls all connections have open.
        buffer: the buffer for reads of all connections.
    """

    def __init__(self, limits: Limits, listen: Callable[[str], Awaitable[object]]) -> None:
        """Args:
        limits: the limits on connections.
        listen: has gRPC's library listen on another address, too. Called if something has removed the socket, such as a
            cleaner of old temporary files. Raises RuntimeError if it cannot.

        Raises:
            UnavailableError: the folder cannot be made.
        """
        self.limits = limits
        self.turns = Turns()
        self.num_calls = 0
        self.buffer = memoryview(bytearray(_READ_BYTES))
        self._listen = listen
        self._folder, self._path = _make_folder()
        self._restoring = asyncio.Lock()
        self._is_stopping = False
        self._clients: set[ClientSide] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._acceptors: list[Acceptor] = []
        self._is_empty = asyncio.Event()

    @property
    def address(self) -> str:
        """The address that gRPC's library must listen on: a socket in a folder that only this user can enter. It
        changes if the socket is removed.
        """
        return f"unix:{self._path}"

    async def start(self, host: str, port: int, *, is_shared: bool) -> int:
        """Listen for clients; gRPC's library must be listening.

        Args:
            host: the name or address to listen on.
            port: the port; 0 takes a free one.
            is_shared: set SO_REUSEPORT, so that other servers can listen on the same port.

        Returns:
            the port.

        Raises:
            UnavailableError: the address is taken, or is not this machine's.
        """
        listeners = listen(host, port, purpose="gRPC", is_shared=is_shared)
        self._acceptors = [Acceptor(listener, lambda: ClientSide(self)) for listener in listeners]
        bound: int = listeners[0].getsockname()[1]
        return bound

    def stop_listening(self) -> None:
        """Accept no more connections."""
        self._is_stopping = True
        for acceptor in self._acceptors:
            acceptor.close()

    async def close(self) -> None:
        """Close the connections that gRPC's library, which has stopped, left open."""
        self.stop_listening()
        for client in self._clients:
            client.close()
        if self._clients:
            self._is_empty.clear()
            try:
                await asyncio.wait_for(self._is_empty.wait(), 1)
            except TimeoutError:
                for client in tuple(self._clients):
                    client.transport.abort()
        self._folder.remove()

    def arrived(self, client: ClientSide) -> None:
        """Called when a client has connected: connect it to gRPC's library."""
        if len(self._clients) >= self.limits.connections:
            client.transport.abort()
            return
        self._clients.add(client)
        connecting = asyncio.get_running_loop().create_task(self._connect(client))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)

    def left(self, client: ClientSide) -> None:
        """Called when a client's connection has ended: forget the client."""
        self._clients.discard(client)
        if not self._clients:
            self._is_empty.set()

    async def _connect(self, client: ClientSide) -> None:
        try:
            library = await self._reach(client)
        except (OSError, RuntimeError, UnavailableError) as error:
            _log.warning("a gRPC connection is closed: it cannot be passed on: %s", error)
            client.transport.abort()
            return
        if client.is_closed:
            library.transport.abort()
        else:
            client.connect(library)

    async def _reach(self, client: ClientSide) -> LibrarySide:
        """Connect to gRPC's library. If its socket is gone, have the library listen at a new one."""
        loop, path = asyncio.get_running_loop(), self._path
        try:
            return (await loop.create_unix_connection(lambda: LibrarySide(self, client), path))[1]
        except FileNotFoundError:
            if self._is_stopping:
                raise
            await self._restore(path)
        return (await loop.create_unix_connection(lambda: LibrarySide(self, client), self._path))[1]

    async def _restore(self, path: str) -> None:
        """Have gRPC's library listen at a new socket, unless that was done since `path` was the socket's path."""
        async with self._restoring:
            if path != self._path:
                return
            gone, (self._folder, self._path) = self._folder, _make_folder()
            gone.remove()
            await self._listen(self.address)
            _log.warning(
                "gRPC's socket in '%s' was removed; it is in '%s' now, and what removes temporary files of a process "
                "that runs should leave these alone",
                gone.path,
                self._folder.path,
            )


def _make_folder() -> tuple[HeldFolder, str]:
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):
        try:
            folder = HeldFolder(parent)
        except OSError as error:
            raise UnavailableError(f"gRPC's socket cannot be made in '{parent}': {error}") from error
        path = f"{folder.path / 'grpc'}"
        if len(path.encode()) <= _MAX_PATH_BYTES:
            return folder, path
        folder.remove()
    raise UnavailableError(f"the path of gRPC's socket, '{path}', is longer than {_MAX_PATH_BYTES} bytes")
