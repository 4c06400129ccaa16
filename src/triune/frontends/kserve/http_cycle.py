"""An inference on a connection."""

import asyncio

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from triune.core.requests import InferenceResponse
from triune.frontends.kserve.compression import Body
from triune.frontends.kserve.http_codec import OutputForm
from triune.frontends.kserve.http_infer import Headers, Route


class InferCycle(RequestResponseCycle):
    """An inference's place in uvicorn's order of cycles. Only what the order needs is there of the base class.

    Attributes:
        route: what its path names; None for a request that is refused before it is known what it asks for.
        headers: its headers, names in lower case.
        form: the form that the client wants the answer in, once the server has taken the request.
        received: the body so far.
        is_received: the whole body is here.
        refusal: the status and message to answer, whatever was asked.
        future: the answer, once the server has taken the request.
    """

    received: Body = b""
    is_received = False
    refusal: tuple[int, str] | None = None
    future: asyncio.Future[InferenceResponse] | None = None
    form = OutputForm(False, {})
    waiting_for_100_continue = False
    response_complete = False
    disconnected = False

    def __init__(self, route: Route | None, headers: Headers, keep_alive: bool) -> None:
        self.route = route
        self.headers = headers
        self.keep_alive = keep_alive
