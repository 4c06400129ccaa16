"""An HTTP server with the text APIs and its own event loop in a thread, for blocking clients."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import uvloop

from support.hand_server import HandServer
from support.table_text_model import TableTextModels
from triune.frontends.access import OPEN, Rules
from triune.frontends.anthropic import anthropic_routes
from triune.frontends.bodies.budget import MemoryBudget
from triune.frontends.bodies.offload import Offload
from triune.frontends.kserve.http.server import HttpServer
from triune.frontends.limits import Limits
from triune.frontends.openai import openai_routes
from triune.frontends.routes import ApiRoute

T = TypeVar("T")


@dataclass
class TextServer:
    """A running server.

    Attributes:
        port: its port.
        models: its models, which were made on its event loop.
        budget: its memory budget.
        loop: its event loop.
    """

    port: int
    models: TableTextModels
    budget: MemoryBudget
    loop: asyncio.AbstractEventLoop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)


@contextlib.contextmanager
def serve_text(
    make_models: Callable[[], TableTextModels],
    *,
    rules: Rules = OPEN,
    limits: Limits | None = None,
    more_routes: Callable[[Any], Sequence[ApiRoute]] = lambda models: (),
) -> Iterator[TextServer]:
    """Serve models in a thread. `more_routes` makes further routes for the models, which come before those of the text
    APIs.
    """
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[HttpServer, Offload, TextServer]:
        models, budget, offload = make_models(), MemoryBudget(64 << 20), Offload()
        server = HttpServer(
            HandServer(),  # type: ignore[arg-type]
            "127.0.0.1",
            0,
            limits=limits,
            budget=budget,
            offload=offload,
            rules=rules,
            more_routes=lambda bodies: [
                *more_routes(models),
                *anthropic_routes(models, bodies),
                *openai_routes(models, bodies, offload),
            ],
        )
        return server, offload, TextServer(await server.start(), models, budget, loop)

    server, offload, running = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    try:
        yield running
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(60)
        loop.call_soon_threadsafe(offload.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
