"""The state of one inference request on an HTTP connection. uvicorn's word for a request and its response is cycle."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from triune.frontends.bodies.arriving import ArrivingBody
from triune.frontends.bodies.budget import MemoryBudget, Reservation
from triune.frontends.bodies.compression import Body
from triune.frontends.kserve.http.codec import OutputForm
from triune.frontends.kserve.http.infer import Headers, Route


class InferCycle(RequestResponseCycle):
    """An inference request in uvicorn's queue of request/response cycles.

    It sets only those attributes of the base class that the queue needs.

    Attributes:
        route: the model and version in the path; None if the request was refused before its path was known.
        headers: the headers, with names in lower case.
        form: the form of the outputs in the response; set when the request is decoded.
        received: the body received so far, while it is one piece.
        arriving: the body received so far, once it has several pieces.
        is_received: whether the whole body has been received.
        refusal: the status and message of the error to answer with, if the request was refused.
        future: the future of the response, or the task that handles a large request; None before it is started.
        held: the memory that is reserved for the request; None for small requests.
        can_stream: whether the client understands chunked responses (HTTP/1.1).
    """

    received: Body = b""
    arriving: ArrivingBody | None = None
    is_received = False
    future: asyncio.Future[Any] | None = None
    can_stream = True
    form = OutputForm(False, {})
    waiting_for_100_continue = False
    response_complete = False

    def __init__(self, route: Route | None, headers: Headers, keep_alive: bool = True) -> None:
        self.route = route
        self.headers = headers
        self.keep_alive = keep_alive
        # Set these attributes on the object, not on the class, where Python would find them more slowly: each request
        # reads them.
        self.refusal: tuple[int, str] | None = None
        self.held: Reservation | None = None
        self.disconnected = False

    def hold(self, budget: MemoryBudget, num_bytes: int) -> Reservation:
        """Change the request's reservation to `num_bytes`. Raises the errors of `Reservation.resize`."""
        if self.held is None:
            self.held = budget.reserve()
        self.held.resize(num_bytes)
        return self.held

    def release(self) -> None:
        """Release the reservation."""
        if self.held is not None:
            self.held.release()
