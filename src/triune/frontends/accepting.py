"""Accepts connections, a few in each iteration of the event loop.

asyncio and uvloop accept all connections that wait, and make a protocol for each, before anything else goes on: a burst
of thousands would delay every other client for seconds. Here connections are accepted in small groups, the longest
waiting first, and between two groups the loop serves the existing connections.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

_MOST_IN_A_TURN: Final = 8
"""The most connections that a port accepts in one iteration of the loop. Accepting one takes about 0.1 ms. Its
first request has probably arrived already, and takes another 0.1 ms or more.
"""

_MOST_UNDER_WAY: Final = 12
"""The most accepted connections of a port that have no protocol yet, which takes about three iterations of the loop.
Nothing else limits their file descriptors, of which models need those that connections leave (`lifetime.descriptors`).
"""

_PAUSE_SECONDS: Final = 1.0
"""The pause, in seconds, before connections are accepted again after the system has refused a file descriptor or
memory; asyncio pauses for as long.
"""

_NO_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = logging.getLogger(__name__)


class Acceptor:
    """Accepts the connections of a listening socket. It is used on the event loop's thread, from its creation on."""

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Args:
        listener: a socket that listens and does not block; `close` closes it.
        protocol: creates the protocol object for a connection.
        """
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._protocol = protocol
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._resume()

    def close(self) -> None:
        """Stop accepting connections. Open connections stay open. Further calls do nothing."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    async def wait_closed(self) -> None:
        """Wait until connections that were accepted before `close` have their protocols. uvicorn calls this."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(min(_MOST_IN_A_TURN, _MOST_UNDER_WAY - len(self._tasks))):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_RESOURCES:
                    raise
                _log.error(
                    "cannot accept a connection: %s; allow the process more open files (ulimit -n), or lower "
                    "--max-connections",
                    error.strerror,
                )
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_PAUSE_SECONDS, self._resume)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._connect(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            # Set TCP_NODELAY here: asyncio sets it only on sockets that were made with a protocol number, which this
            # one lacks.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError as error:
            # The client has disconnected already.
            _log.debug("a connection ended before it began: %s", error)
            connection.close()
