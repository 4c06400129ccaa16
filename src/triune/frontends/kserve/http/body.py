"""Requests that the app answers: their versions, their bodies, bounded in size; and answers in JSON."""

from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from triune.core.errors import NotFoundError
from triune.frontends.kserve.budget import MemoryBudget, Reservation
from triune.frontends.kserve.compression import Body
from triune.frontends.kserve.decoder import STRINGS_FACTOR, Decoder
from triune.frontends.kserve.http.json_parsing import parse_json
from triune.frontends.kserve.http.parameters import as_object
from triune.frontends.kserve.limits import MAX_VERSION_DIGITS, Limits, check_small, shortened, too_large
from triune.frontends.kserve.offload import SMALL_BYTES

T = TypeVar("T")


class JsonResponse(Response):
    """A JSON document."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The document as bytes; a bytes value is JSON already."""
        return content if isinstance(content, bytes) else orjson.dumps(content)


class HeldResponse(JsonResponse):
    """A JSON document whose reservation is released once the client has taken it, or is gone."""

    def __init__(self, content: bytes, held: Reservation) -> None:
        """`held` is taken over; it is to be as large as `content`."""
        super().__init__(content)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._held:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
            # uvicorn waits before it sends the next piece until the client has taken most of the one before.
            await send({"type": "http.response.body", "body": b""})


def version_of(request: Request) -> int | None:
    """The version that a path names; None if it names none.

    Raises:
        NotFoundError: it is no version's number.
    """
    text: str | None = request.path_params.get("version")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_VERSION_DIGITS):
        raise NotFoundError(f"model '{request.path_params['model'][:64]}' has no version '{shortened(text)}'")
    return int(text)


class BodyReader:
    """Reads and parses what the app's requests bring, within the limits and the memory budget."""

    def __init__(self, limits: Limits, budget: MemoryBudget, decoder: Decoder) -> None:
        self._limits = limits
        self._budget = budget
        self._decoder = decoder

    def reserve(self) -> Reservation:
        """What a request's body, and then its answer, will hold; the caller releases it."""
        return self._budget.reserve()

    async def parse(
        self, request: Request, work: Callable[[memoryview], T], held: Reservation, *, are_strings: bool = False
    ) -> T:
        """What `work` makes of a request's body, decompressed: at once if it is small, else in a process.

        Args:
            request: whose body it is.
            work: pickled if it is sent to a process.
            held: takes what the body takes.
            are_strings: nearly all of it is in few strings, which take no more than they have: no limit of its own.

        Raises:
            PayloadTooLargeError: the body is larger than the server's limits, as it comes or decompressed.
            InvalidArgumentError: it is not what its Content-Encoding says.
            UnsupportedError: its Content-Encoding is unknown.
            UnavailableError: requests under way take all memory.
            TriuneError: what `work` raises.
        """
        body = await self._read(request, self._limits.request_bytes, held)
        if len(body) <= SMALL_BYTES:
            return work(memoryview(body))
        if are_strings:
            return await self._decoder.parse(work, body, len(body), held, factor=STRINGS_FACTOR)
        self._decoder.check_size(len(body))
        return await self._decoder.parse(work, body, len(body), held)

    async def small_object(self, request: Request) -> dict[str, Any]:
        """A JSON object that need not be large; an empty body is an empty object. Raises as `parse` does."""
        with self.reserve() as held:
            body = await self._read(request, self._limits.request_bytes, held)
            check_small(len(body))
            return parse_object(memoryview(body))

    async def _read(self, request: Request, max_bytes: int, held: Reservation) -> Body:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > max_bytes:
                raise too_large(len(body), max_bytes, is_json=True)
            held.resize(len(body))
        return await self._decoder.decompress(request.headers.get("content-encoding", ""), body, held)


def parse_object(body: memoryview) -> dict[str, Any]:
    """A body as a JSON object; an empty body is an empty object. Raises InvalidArgumentError if it is none."""
    return as_object(parse_json(body), "the request") if len(body) else {}
