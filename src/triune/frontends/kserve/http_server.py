"""The HTTP server: the connections and the app on one port, inside a loop that somebody else runs."""

import asyncio
import contextlib
import math
import socket
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.routing import BaseRoute

from triune.core.errors import InvalidArgumentError
from triune.frontends.kserve.http_app import make_app
from triune.frontends.kserve.http_limits import MAX_REQUEST_BYTES, Limits
from triune.frontends.kserve.http_protocol import FrontEnd, KServeProtocol
from triune.serving.server import Server

_BACKLOG = 2048
# uvicorn ticks ten times a second.
_TICKS_PER_CHECK = 2


class HttpServer:
    """KServe over HTTP. Started and stopped once."""

    def __init__(
        self,
        server: Server,
        host: str,
        port: int,
        *,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        limits: Limits | None = None,
        more_routes: Sequence[BaseRoute] = (),
    ) -> None:
        """Args:
        server: what it serves.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        max_request_bytes: largest body of a request, as it comes and decompressed.
        limits: all limits at once, in place of `max_request_bytes`.
        more_routes: routes of other front ends on the same port.
        """
        limits = limits or Limits(request_bytes=max_request_bytes)
        app = make_app(server, max_request_bytes=limits.request_bytes, more_routes=more_routes)
        protocol = partial(KServeProtocol, front_end=FrontEnd(server, limits))
        self._host = host
        self._port = port
        self._config = uvicorn.Config(
            app,
            # uvicorn calls it with keywords and takes whatever comes back.
            http=cast("type[asyncio.Protocol]", protocol),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
        )
        self._uvicorn = _Uvicorn(self._config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen.

        Returns:
            the port.

        Raises:
            InvalidArgumentError: the address cannot be listened on.
        """
        listener = _listen(self._host, self._port)
        self._task = asyncio.create_task(self._uvicorn.serve(sockets=[listener]))
        ready = asyncio.ensure_future(self._uvicorn.is_listening.wait())
        await asyncio.wait((self._task, ready), return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            await self._task
        return listener.getsockname()[1]

    async def stop(self, grace_seconds: float) -> None:
        """Take no more connections, let requests under way finish for `grace_seconds`, then close every connection."""
        if self._task is None:
            return
        self._config.timeout_graceful_shutdown = max(1, math.ceil(grace_seconds))
        self._uvicorn.should_exit = True
        try:
            await self._task
        finally:
            for connection in list(self._uvicorn.server_state.connections):
                cast(KServeProtocol, connection).transport.abort()


class _Uvicorn(uvicorn.Server):
    """uvicorn that leaves signals to whoever runs the loop, and checks the connections' deadlines."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_listening.set()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_CHECK == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                cast(KServeProtocol, connection).check_deadline(now)
        return await super().on_tick(counter)


def _listen(host: str, port: int) -> socket.socket:
    listener: Any = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise InvalidArgumentError(f"cannot listen on {host}:{port}: {error.strerror}; choose another port") from error
    return listener
