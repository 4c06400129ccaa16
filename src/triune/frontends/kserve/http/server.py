"""The HTTP server: inference and the app on one port, in the running event loop."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, cast

import uvicorn
from anyio import connect_tcp, create_memory_object_stream, lowlevel

from triune.frontends.access import OPEN, Api, Rules
from triune.frontends.bodies.budget import MemoryBudget
from triune.frontends.bodies.decoder import Decoder
from triune.frontends.bodies.offload import Offload
from triune.frontends.bodies.reader import BodyReader
from triune.frontends.embedded import EmbeddedServer
from triune.frontends.hosts import OwnHosts
from triune.frontends.kserve.http.answering import FrontEnd
from triune.frontends.kserve.http.app import make_app
from triune.frontends.kserve.http.large_inferences import LargeInferences
from triune.frontends.kserve.http.protocol import KServeProtocol
from triune.frontends.limits import Limits
from triune.frontends.routes import ApiRoute
from triune.serving.server import Server

NEEDED_LATER: Final = (connect_tcp, create_memory_object_stream, lowlevel)
"""Modules that starlette imports at its first stream. They are imported early, since packages may be upgraded while the
server runs.
"""


class HttpServer:
    """Serves KServe over HTTP. It can be started and stopped only once."""

    def __init__(
        self,
        server: Server,
        host: str,
        port: int,
        *,
        limits: Limits | None = None,
        budget: MemoryBudget | None = None,
        offload: Offload | None = None,
        rules: Rules = OPEN,
        hosts: OwnHosts | None = None,
        more_routes: Callable[[BodyReader], Sequence[ApiRoute]] | None = None,
        is_port_shared: bool = False,
    ) -> None:
        """Args:
        server: answers the requests.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        limits: the limits on requests and connections.
        budget: the memory budget, shared with other front ends; None makes one for this server.
        offload: the threads and processes for large requests, shared with other front ends; None makes one for
            this server. `stop` closes only one that this server made; the caller closes another.
        rules: the access rules.
        hosts: the names by which requests may call the server; None for any.
        more_routes: makes the routes of another front end on the same port. It is given the reader of request
            bodies, which applies the limits and the budget.
        is_port_shared: set SO_REUSEPORT, so that several servers can share the port.
        """
        limits = limits or Limits()
        budget = budget or MemoryBudget()
        self._own_offload = None if offload else Offload()
        offload = offload or self._own_offload or Offload()
        decoder = Decoder(limits, offload)
        bodies = BodyReader(limits, budget, decoder)
        more = more_routes(bodies) if more_routes is not None else ()
        app = make_app(server, bodies, offload, rules=rules, more_routes=more)
        large = LargeInferences(server, decoder, offload)
        front_end = FrontEnd(server, limits, budget, large, rules.get(Api.INFERENCE), hosts)
        protocol = partial(KServeProtocol, front_end=front_end)
        self._host = host
        self._port = port
        self._is_port_shared = is_port_shared
        config = uvicorn.Config(
            app,
            # uvicorn calls `http` with keyword arguments, so `protocol`, a function, serves as well as a class.
            http=cast("type[asyncio.Protocol]", protocol),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        self._uvicorn = EmbeddedServer(config)

    async def start(self) -> int:
        """Listen.

        Returns:
            the port.

        Raises:
            UnavailableError: the address is taken or is not this machine's.
        """
        # Import anyio's part for asyncio now: the first stream would import it, and block the event loop for some 20
        # ms.
        await lowlevel.checkpoint()
        return await self._uvicorn.open(self._host, self._port, purpose="HTTP", is_shared=self._is_port_shared)

    async def stop(self, grace_seconds: float) -> None:
        """Accept no more connections, give requests `grace_seconds` to finish, then close every connection."""
        try:
            await self._uvicorn.close(grace_seconds)
        finally:
            for connection in list(self._uvicorn.server_state.connections):
                cast(KServeProtocol, connection).transport.abort()
            if self._own_offload is not None:
                self._own_offload.close()
