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

from triune.arbiter.arbiter import Arbiter
from triune.core.errors import TriuneError, UnauthenticatedError
from triune.core.units import UnitStatus
from triune.frontends.access import CHALLENGE, OPEN, Api, Rule, Rules
from triune.frontends.embedded import EmbeddedServer
from triune.frontends.hosts import OwnHosts
from triune.frontends.metrics.collector import MetricsCollector
from triune.frontends.metrics.options import MetricsOptions
from triune.frontends.metrics.text import CONTENT_TYPE, write_text
from triune.frontends.short import ShortLimits, ShortProtocol
from triune.hardware.energy.ledger import EnergyLedger
from triune.repository.memory.keeper import MemoryKeeper
from triune.serving.server import Server


def make_app(collector: MetricsCollector, rule: Rule | None = None, hosts: OwnHosts | None = None) -> Starlette:
    """Make an app that answers GET /metrics, guarded by the access `rule`, for callers that name one of `hosts`."""

    async def metrics(request: Request) -> Response:
        if hosts is not None and (refusal := hosts.problem(b"GET", request.headers.raw)) is not None:
            return Response(f"{refusal}\n", 403, media_type="text/plain")
        if rule is not None:
            try:
                rule.check(request.headers.getlist(rule.header))
            except TriuneError as error:
                if isinstance(error, UnauthenticatedError):
                    return Response(f"{error}\n", 401, CHALLENGE, "text/plain")
                return Response(f"{error}\n", 403, media_type="text/plain")
        return Response(write_text(collector.collect()), headers={"content-type": CONTENT_TYPE})

    return Starlette(routes=[Route("/metrics", metrics)])


class MetricsServer:
    """Serves Prometheus metrics on one port, in the running event loop."""

    def __init__(
        self,
        server: Server,
        host: str = "127.0.0.1",
        port: int = 8002,
        *,
        units: Sequence[UnitStatus] = (),
        options: MetricsOptions | None = None,
        ledger: EnergyLedger | None = None,
        arbiter: Arbiter | None = None,
        keeper: MemoryKeeper | None = None,
        limits: ShortLimits | None = None,
        rules: Rules = OPEN,
        hosts: OwnHosts | None = None,
    ) -> None:
        """Args:
        server: the server with the models.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        units: the machine's compute units; if empty, triune_unit_present is left out.
        options: which metrics are exported.
        ledger: the joules of the models and of the machine's rails; None if energy is not metered.
        arbiter: decides which models compute at once on shared hardware; None leaves its metrics out.
        keeper: keeps the models within the memory budget; None leaves its metrics out.
        limits: the limits on requests and connections.
        rules: the access rules.
        hosts: the names by which requests may call the port; None for any.
        """
        self._host = host
        self._port = port
        config = uvicorn.Config(
            make_app(
                MetricsCollector(server, units, options or MetricsOptions(), ledger, arbiter, keeper),
                rules.get(Api.METRICS),
                hosts,
            ),
            # uvicorn calls `http` with keyword arguments, so a partial function serves as well as a class.
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
        """Accept no new connections, and give running requests `grace_seconds` to finish."""
        await self._uvicorn.close(grace_seconds)
