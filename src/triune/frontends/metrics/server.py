"""The metrics port: GET /metrics."""

import asyncio
import contextlib
import socket
from collections.abc import Generator, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from triune.core.errors import UnavailableError
from triune.core.units import UnitStatus
from triune.frontends.metrics.collector import MetricsCollector
from triune.frontends.metrics.text import CONTENT_TYPE, write_text
from triune.serving.server import Server


def make_app(collector: MetricsCollector) -> Starlette:
    """An application that answers GET /metrics."""

    async def metrics(_: Request) -> Response:
        return Response(write_text(collector.collect()), headers={"content-type": CONTENT_TYPE})

    return Starlette(routes=[Route("/metrics", metrics)])


class MetricsServer:
    """Listens for Prometheus on one port, in the running event loop."""

    def __init__(
        self, server: Server, host: str = "127.0.0.1", port: int = 8002, *, units: Sequence[UnitStatus] = ()
    ) -> None:
        """Args:
        server: whose models are told.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        units: the machine's units; none leaves triune_unit_present out.
        """
        self._host = host
        self._port = port
        config = uvicorn.Config(
            make_app(MetricsCollector(server, units)),
            access_log=False,
            log_config=None,
            lifespan="off",
            server_header=False,
        )
        self._uvicorn = _Uvicorn(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen.

        Returns:
            the port.

        Raises:
            UnavailableError: the address is taken or is not this machine's.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listener = socket.create_server((self._host, self._port), family=family)
        except OSError as error:
            raise UnavailableError(
                f"cannot listen for metrics on {self._host}:{self._port}: {error}; choose another port or host"
            ) from error
        listener.setblocking(False)
        self._serving = asyncio.create_task(self._uvicorn.serve(sockets=[listener]))
        listening = asyncio.create_task(self._uvicorn.listening.wait())
        await asyncio.wait((self._serving, listening), return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._serving.done():
            self._serving.result()
        port: int = listener.getsockname()[1]
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Take no new connections, and give those that are being answered `grace_seconds` to finish."""
        if self._serving is None:
            return
        self._uvicorn.should_exit = True
        done, _ = await asyncio.wait((self._serving,), timeout=grace_seconds)
        if not done:
            self._uvicorn.force_exit = True
        await self._serving
        self._serving = None


class _Uvicorn(uvicorn.Server):
    """uvicorn that leaves signals to the process it runs in, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.listening.set()
