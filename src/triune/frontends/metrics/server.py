"""The metrics port: GET /metrics."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from triune.core.errors import TriuneError, UnauthenticatedError
from triune.core.units import UnitStatus
from triune.frontends.access import OPEN, Api, Rule, Rules
from triune.frontends.embedded import EmbeddedServer
from triune.frontends.metrics.collector import MetricsCollector
from triune.frontends.metrics.options import MetricsOptions
from triune.frontends.metrics.text import CONTENT_TYPE, write_text
from triune.frontends.short import ShortLimits, ShortProtocol
from triune.serving.server import Server


def make_app(collector: MetricsCollector, rule: Rule | None = None) -> Starlette:
    """An application that answers GET /metrics, to those who show what `rule` asks for."""

    async def metrics(request: Request) -> Response:
        if rule is not None:
            try:
                rule.check(request.headers.get(rule.header))
            except TriuneError as error:
                if isinstance(error, UnauthenticatedError):
                    return Response(f"{error}\n", 401, {"WWW-Authenticate": "Bearer"}, "text/plain")
                return Response(f"{error}\n", 403, media_type="text/plain")
        return Response(write_text(collector.collect()), headers={"content-type": CONTENT_TYPE})

    return Starlette(routes=[Route("/metrics", metrics)])


class MetricsServer:
    """Listens for Prometheus on one port, in the running event loop."""

    def __init__(
        self,
        server: Server,
        host: str = "127.0.0.1",
        port: int = 8002,
        *,
        units: Sequence[UnitStatus] = (),
        options: MetricsOptions | None = None,
        limits: ShortLimits | None = None,
        rules: Rules = OPEN,
    ) -> None:
        """Args:
        server: whose models are told.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        units: the machine's units; none leaves triune_unit_present out.
        options: which metrics there are.
        limits: what a client may ask.
        rules: who may call what.
        """
        self._host = host
        self._port = port
        config = uvicorn.Config(
            make_app(MetricsCollector(server, units, options or MetricsOptions()), rules.get(Api.METRICS)),
            # uvicorn calls it with keywords and takes whatever comes back.
            http=cast("type[asyncio.Protocol]", partial(ShortProtocol, limits=limits or ShortLimits())),
            ws="none",
            access_log=False,
            log_config=None,
            lifespan="off",
            server_header=False,
        )
        self._uvicorn = EmbeddedServer(config)

    async def start(self) -> int:
        """Listen.

        Returns:
            the port.

        Raises:
            UnavailableError: the address is taken or is not this machine's.
        """
        return await self._uvicorn.open(self._host, self._port, purpose="metrics")

    async def stop(self, grace_seconds: float) -> None:
        """Take no new connections, and give those that are being answered `grace_seconds` to finish."""
        await self._uvicorn.close(grace_seconds)
