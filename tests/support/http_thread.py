"""An HTTP server with its own event loop in a thread, for blocking clients."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

import uvloop

from support.hand_server import HandServer
from triune.frontends.kserve.http.server import HttpServer
from triune.frontends.limits import Limits


@contextlib.contextmanager
def serve_in_thread(
    server: HandServer,
    limits: Limits | None = None,
    new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
) -> Iterator[int]:
    """Serve `server` in a thread, by default with uvloop. Yields the port."""
    loop = new_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[HttpServer, int]:
        front_end = HttpServer(server, "127.0.0.1", 0, limits=limits)  # type: ignore[arg-type]
        return front_end, await front_end.start()

    front_end, port = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(front_end.stop(0), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
