"""Decompress and parse request bodies of any size, off the event loop and within the memory budget."""

from collections.abc import Callable
from typing import TypeVar

from triune.core.errors import PayloadTooLargeError
from triune.frontends.bodies.budget import Reservation
from triune.frontends.bodies.compression import Body, Decompression, is_compressed
from triune.frontends.bodies.offload import SMALL_BYTES, Offload
from triune.frontends.limits import Limits

T = TypeVar("T")

_JSON = "JSON: send tensors as binary data, with 'binary_data_size'"

PARSED_FACTOR = 10
"""Bytes of memory for each byte of JSON while a process parses it: two copies of the JSON, and its values as
objects.
"""

STRINGS_FACTOR = 4
"""Bytes of memory for each byte of JSON that consists of a few long strings, while a process parses it."""


class Decoder:
    """Decompresses and parses bodies of any size. The request's reservation of memory grows by what this takes."""

    def __init__(self, limits: Limits, offload: Offload) -> None:
        """Args:
        limits: the limits; only those of bodies and of JSON are used.
        offload: the threads and processes that do the work.
        """
        self._limits = limits
        self._offload = offload

    async def decompress(self, encoding: str, body: Body, held: Reservation) -> Body:
        """Decompress a body by its Content-Encoding. Raises the errors of `Decompression`."""
        if not is_compressed(encoding):
            return body
        limits = self._limits
        work = Decompression(encoding, body, limits.request_bytes, limits.decompression_ratio)
        while await self._offload.run(work.step):
            held.resize(len(body) + len(work.data))
        held.resize(len(work.data))
        return work.data

    def check_size(self, num_bytes: int, what: str = _JSON) -> None:
        """Raise PayloadTooLargeError if `num_bytes` is more than `Limits.json_bytes`. `what` is text for the message:
        the name of the data, a colon, and what the client can do instead.
        """
        limit = self._limits.json_bytes
        if num_bytes > limit:
            what, _, remedy = what.partition(": ")
            raise PayloadTooLargeError(
                f"request {what} size of {num_bytes} bytes exceeds the maximum allowed input size of {limit} bytes. "
                f"Use --max-json-bytes to increase the limit, or {remedy}"
            )

    async def parse(
        self,
        work: Callable[[memoryview], T],
        body: Body,
        json_bytes: int,
        held: Reservation,
        *,
        factor: int = PARSED_FACTOR,
    ) -> T:
        """Compute `work(body)`: in a process if `json_bytes` is more than `SMALL_BYTES`, else in a thread. Small bodies
        do not wait for large ones.

        Args:
            work: the function; it must be picklable.
            body: the body.
            json_bytes: the number of bytes that `work` parses.
            held: the request's reservation. It grows by `factor * json_bytes` while `work` runs.
            factor: how many bytes of memory each parsed byte takes.

        Raises:
            TriuneError: `work` raised it.
            UnavailableError: the memory budget is exceeded, or the process ended.
        """
        if json_bytes <= SMALL_BYTES:
            return await self._offload.run(work, memoryview(body))
        before = held.num_bytes
        async with self._offload.parser_slot(body, json_bytes) as parsers:
            held.grow(factor * json_bytes)
            result = await self._offload.parse(parsers, work, body)
        held.resize(before)
        return result
