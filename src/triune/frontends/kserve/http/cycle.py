"""An inference on a connection."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from triune.frontends.kserve.budget import MemoryBudget, Reservation
from triune.frontends.kserve.compression import Body
from triune.frontends.kserve.http.codec import OutputForm
from triune.frontends.kserve.http.infer import Headers, Route


class InferCycle(RequestResponseCycle):
    """An inference's place in uvicorn's order of cycles. Only what the order needs is there of the base class.

    Attributes:
        route: what its path names; None for a request that is refused before it is known what it asks for.
        headers: its headers, names in lower case.
        form: the form that the client wants the answer in, once the server has taken the request.
        received: the body so far.
        is_received: the whole body is here.
        refusal: the status and message to answer, whatever was asked.
        future: the answer, once the server has taken the request; or the task that sees to a large one.
        held: what the request takes of the memory budget, if that is worth counting.
        can_stream: the client knows chunks, as HTTP/1.1 has them.
    """

    received: Body = b""
    is_received = False
    refusal: tuple[int, str] | None = None
    future: asyncio.Future[Any] | None = None
    held: Reservation | None = None
    can_stream = True
    form = OutputForm(False, {})
    waiting_for_100_continue = False
    response_complete = False
    disconnected = False

    def __init__(self, route: Route | None, headers: Headers, keep_alive: bool) -> None:
        self.route = route
        self.headers = headers
        self.keep_alive = keep_alive

    def hold(self, budget: MemoryBudget, num_bytes: int) -> Reservation:
        """Reserve so much for the request, in place of what it had. Raises as `Reservation.resize` does."""
        if self.held is None:
            self.held = budget.reserve()
        self.held.resize(num_bytes)
        return self.held

    def release(self) -> None:
        """Give back what was reserved: the request is done with."""
        if self.held is not None:
            self.held.release()
