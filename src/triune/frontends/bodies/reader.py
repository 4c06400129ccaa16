"""Read and parse the bodies of requests, within the limits on sizes and the memory budget."""

from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from starlette.requests import Request

from triune.core.errors import UnavailableError
from triune.frontends.bodies.arriving import ArrivingBody
from triune.frontends.bodies.budget import MemoryBudget, Reservation
from triune.frontends.bodies.compression import Body
from triune.frontends.bodies.decoder import PARSED_FACTOR, STRINGS_FACTOR, Decoder
from triune.frontends.bodies.event_streams import while_connected
from triune.frontends.bodies.json_parsing import parse_json
from triune.frontends.bodies.json_values import as_object
from triune.frontends.bodies.offload import SMALL_BYTES
from triune.frontends.limits import Limits, check_small, too_large

T = TypeVar("T")


class BodyReader:
    """Reads and parses request bodies within the limits and the memory budget."""

    def __init__(self, limits: Limits, budget: MemoryBudget, decoder: Decoder) -> None:
        self._limits = limits
        self._budget = budget
        self._decoder = decoder

    def reserve(self) -> Reservation:
        """Make a reservation for a request's body and later its response. The caller releases it."""
        return self._budget.reserve()

    async def parse(
        self, request: Request, work: Callable[[memoryview], T], held: Reservation, *, are_strings: bool = False
    ) -> T:
        """Read and decompress a request's body, and return `work(body)`, computed in a process if the body is large.

        Args:
            request: the request.
            work: the function; it must be picklable.
            held: the request's reservation, which is changed to the body's size.
            are_strings: the body consists of a few long strings, so it needs less memory to parse, and the limit on
                JSON does not apply.

        Raises:
            PayloadTooLargeError: the body is larger than the limits, compressed or decompressed.
            InvalidArgumentError: the body does not match its Content-Encoding.
            UnsupportedError: the Content-Encoding is unknown.
            UnavailableError: the memory budget is exceeded.
            TriuneError: `work` raised it.
            CancelledError: the client left while a large body waited or was parsed (the error of `core.errors`).
        """
        body = await self._read(request, self._limits.request_bytes, held)
        if len(body) <= SMALL_BYTES:
            return work(memoryview(body))
        if not are_strings:
            self._decoder.check_size(len(body))
        factor = STRINGS_FACTOR if are_strings else PARSED_FACTOR
        return await while_connected(request, self._decoder.parse(work, body, len(body), held, factor=factor))

    async def small_object(self, request: Request) -> dict[str, Any]:
        """Read a small JSON object; an empty body is an empty object. Raises the errors of `parse`."""
        with self.reserve() as held:
            body = await self._read(request, self._limits.request_bytes, held)
            check_small(len(body))
            return parse_object(memoryview(body))

    async def pieces(self, request: Request, held: Reservation) -> AsyncGenerator[bytes]:
        """Yield the pieces of a request's body as they arrive. The body is not decompressed.

        Args:
            request: the request.
            held: the request's reservation, which is changed to the size of the pieces so far.

        Raises:
            PayloadTooLargeError: the body is larger than the limit.
            UnavailableError: the memory budget is exceeded.
        """
        num_bytes = _announced_bytes(request)
        if num_bytes > self._limits.request_bytes:
            raise too_large(num_bytes, self._limits.request_bytes)
        num_bytes = 0
        async for piece in request.stream():
            num_bytes += len(piece)
            if num_bytes > self._limits.request_bytes:
                raise too_large(num_bytes, self._limits.request_bytes)
            held.resize(num_bytes)
            yield piece

    async def _read(self, request: Request, max_bytes: int, held: Reservation) -> Body:
        length = _announced_bytes(request)
        if length > max_bytes:
            raise too_large(length, max_bytes, is_json=True)
        body = ArrivingBody(length or max_bytes)
        async for piece in request.stream():
            num_bytes = body.num_bytes + len(piece)
            if num_bytes > max_bytes:
                raise too_large(num_bytes, max_bytes, is_json=True)
            held.resize(num_bytes)
            try:
                body.add(piece)
            except MemoryError:
                raise UnavailableError("there is no memory for the request's body: try again later") from None
        return await self._decoder.decompress(request.headers.get("content-encoding", ""), body.whole(), held)


def _announced_bytes(request: Request) -> int:
    """The size of the body according to Content-Length; 0 if the request does not have this header."""
    return int(request.headers.get("content-length", 0))


def parse_object(body: memoryview) -> dict[str, Any]:
    """Parse a JSON object; an empty body is an empty object. Raises InvalidArgumentError if it is not an object."""
    return as_object(parse_json(body), "the request") if len(body) else {}
