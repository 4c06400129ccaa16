"""HTTP connections for short requests, such as those for metrics, with limits on size, time and number."""

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from triune.frontends.send_timeout import SendTimeout

_LINGER_SECONDS = 5.0
_END_OF_HEAD = b"\r\n\r\n"

_MOST_WAITING = 16
"""The most requests of one connection that wait for the answer to an earlier one."""


@dataclass(frozen=True, slots=True)
class ShortLimits:
    """The limits of a port for short requests.

    Attributes:
        request_bytes: the largest request, head and body together.
        receive_seconds: how long a whole request may take to arrive.
        idle_seconds: how long a connection may stay without a request.
        send_seconds: how long a client may read nothing of a response.
        connections: the largest number of connections.
    """

    request_bytes: int = 64 << 10
    receive_seconds: float = 60.0
    idle_seconds: float = 75.0
    send_seconds: float = 60.0
    connections: int = 4096


class ShortProtocol(HttpToolsProtocol):
    """uvicorn's HTTP connection, with limits."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ShortLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._num_received = 0
        self._is_refused = False
        self._send_timeout = SendTimeout(limits.send_seconds)
        self._deadline = self.loop.time() + limits.idle_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; beyond the limit, answer 503 and close it."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(b"503 Service Unavailable", "the port has as many connections as --max-connections allows")

    def data_received(self, data: bytes) -> None:
        """Pass input to the parser; refuse a request that is larger than the limit."""
        if self._is_refused or self.transport.is_closing():
            return
        if not self._num_received:
            self._deadline = self.loop.time() + self._limits.receive_seconds
        self._num_received += len(data)
        if self._num_received > self._limits.request_bytes:
            limit = self._limits.request_bytes
            self._refuse(
                b"431 Request Header Fields Too Large",
                f"the request takes more than {limit} bytes, the limit",
                lingers=True,
            )
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Pass input to the parser, one head at a time; refuse a client that sends many requests without waiting for
        the answers.
        """
        at = 0
        while at < len(data) and not (self._is_refused or self.transport.is_closing()):
            found = data.find(_END_OF_HEAD, at)
            end = found + len(_END_OF_HEAD) if found >= 0 else len(data)
            super().data_received(data[at:end])
            at = end
            if len(self.pipeline) > _MOST_WAITING:
                self.pipeline.clear()
                limit = _MOST_WAITING
                self._refuse(b"400 Bad Request", f"more than {limit} requests of the connection wait, the limit")

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: uvicorn would advise the operator to install libraries for WebSockets."""

    def on_message_complete(self) -> None:
        """Have uvicorn answer a request that has arrived completely, and start the timeout for the next request."""
        super().on_message_complete()
        self._num_received = 0
        self._deadline = self.loop.time() + self._limits.idle_seconds

    def check_deadline(self, now: float) -> None:
        """Close the connection if a timeout has passed. Called several times a second with the loop's time."""
        if self._send_timeout.is_overdue(self.flow.write_paused, self.transport, now):
            self.transport.abort()
        elif self.flow.write_paused:
            # Move the deadline on while a response is being sent: the connection is idle once the client has read it.
            self._deadline = now + self._limits.idle_seconds
        elif now >= self._deadline:
            self.transport.close()

    def _refuse(self, status: bytes, message: str, *, lingers: bool = False) -> None:
        """Answer with an error and close the connection.

        With `lingers`, close it some seconds later: closing while the client still sends would reset the connection,
        and the client would lose the error.
        """
        text = message.encode() + b"\n"
        head = b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        self.transport.write(head % (status, len(text)) + text)
        if not lingers:
            self.transport.close()
            return
        self._is_refused = True
        self._deadline = self.loop.time() + _LINGER_SECONDS
        self.transport.write_eof()
