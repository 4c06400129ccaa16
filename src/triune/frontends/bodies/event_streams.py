"""Write server-sent events, and cancel a request's work when its client disconnects."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from triune.core.errors import CancelledError as RequestCancelledError
from triune.core.errors import forget_frames
from triune.frontends.bodies.budget import Reservation

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work` and return its result; cancel it if the client closes the connection first.

    Raises:
        CancelledError: the client closed the connection (the error of `triune.core.errors`).
    """
    task = asyncio.ensure_future(work)
    # Wait for the client's disconnection: it is what is received next, since the body has been read.
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
    finally:
        gone.cancel()
        task.cancel()
    if task.cancelled():
        raise RequestCancelledError("the client closed the connection")
    return task.result()


class EventStream(StreamingResponse):
    """Server-sent events. If sending ends for any reason, the generator is closed, which cancels the work that makes
    the events.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], held: Reservation) -> None:
        """Args:
        events: the events, as they are sent.
        held: the request's reservation of memory, which is released at the end.
        """
        super().__init__(events, headers={"Cache-Control": "no-cache"})
        self._events = events
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as fast as the client reads them."""
        with self._held:
            async with contextlib.aclosing(self._events):
                await super().__call__(scope, receive, send)


async def open_stream(
    request: Request, events: AsyncGenerator[bytes], held: Reservation, failed: Callable[[Exception], bytes]
) -> EventStream:
    """Wait for the first event, and return a response that sends it and all following events.

    Args:
        request: the request, whose body has been read.
        events: the events; the response closes them.
        held: the request's reservation of memory. The response releases it; if this raises, the caller does.
        failed: makes the last event out of an error that comes after the first one, when the status has been sent.

    Raises:
        Exception: what `events` raises instead of the first event.
    """
    try:
        first = await while_connected(request, _first(events))
    except BaseException:
        await events.aclose()
        raise
    return EventStream(_rest(first, events, failed), held)


async def _first(events: AsyncGenerator[bytes]) -> list[bytes]:
    """The first event; an empty list if there is none."""
    async for event in events:
        return [event]
    return []


async def _rest(
    first: list[bytes], events: AsyncGenerator[bytes], failed: Callable[[Exception], bytes]
) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(events):
        for event in first:
            yield event
        try:
            async for event in events:
                yield event
        except Exception as error:  # noqa: BLE001 - the status was sent already: the error becomes an event
            event = failed(error)
            forget_frames(error)
            yield event
