"""Inferences over HTTP whose decoding or encoding would hold the event loop: in threads and processes, step by step."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TypeVar

from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError, PayloadTooLargeError, TriuneError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.frontends.kserve.budget import Reservation
from triune.frontends.kserve.compression import (
    MIN_COMPRESSED_BYTES,
    Body,
    Compression,
    Decompression,
    accepted_encoding,
    is_compressed,
    is_worth_compressing,
    pieces,
)
from triune.frontends.kserve.http_codec import OutputForm, decode_request
from triune.frontends.kserve.http_infer import Headers, Route, as_internal_error, content_headers, parse_size
from triune.frontends.kserve.large_requests import (
    encode_large_response,
    inputs_bytes,
    parse_infer,
    unpack,
)
from triune.frontends.kserve.limits import Limits
from triune.frontends.kserve.offload import SMALL_BYTES, Offload, until_done
from triune.frontends.kserve.raw_request import decode_raw_request
from triune.serving.server import Server

T = TypeVar("T")

# Datatypes whose elements are looked at one by one.
_LOOKED_AT = (DataType.BYTES, DataType.BOOL)

_JSON = "JSON: send tensors as binary data, with 'binary_data_size'"

PARSED_FACTOR = 10
"""What JSON takes in all while a process parses it, for each of its bytes: two copies, and its values as objects."""

STRINGS_FACTOR = 4
"""The same of few long strings."""


class Decoder:
    """Bodies of any size to what they say. What a request holds of the memory budget follows its size."""

    def __init__(self, limits: Limits, offload: Offload) -> None:
        """Args:
        limits: how large bodies and JSON may be.
        offload: where the work is done.
        """
        self._limits = limits
        self._offload = offload
        self._places = asyncio.Semaphore(offload.apart.num_processes)

    async def decompress(self, encoding: str, body: Body, held: Reservation) -> Body:
        """A body without its content encoding. Raises as `Decompression` does."""
        if not is_compressed(encoding):
            return body
        limits = self._limits
        work = Decompression(encoding, body, limits.request_bytes, limits.decompression_ratio)
        while await self._offload.run(work.step):
            held.resize(len(body) + len(work.data))
        held.resize(len(work.data))
        return work.data

    def check_size(self, num_bytes: int, what: str = _JSON) -> None:
        """Raises PayloadTooLargeError if so much is more than may be parsed; `what` it is, and what to do instead."""
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
        """`work(body)`, in a process if so many bytes in front of the body are to be parsed; else in a thread.

        Raises:
            TriuneError: what `work` raises.
            UnavailableError: the memory budget is spent, or the process ended.
        """
        if json_bytes <= SMALL_BYTES:
            return await self._offload.run(work, memoryview(body))
        before = held.num_bytes
        async with self._places:
            held.grow(factor * json_bytes)
            loop, apart = asyncio.get_running_loop(), self._offload.apart
            with self._offload.busy():
                result = await until_done(loop.run_in_executor(apart.threads, apart.call, work, body))
        held.resize(before)
        return result


class LargeInferences:
    """What `InferEndpoint` does for small requests, for large ones."""

    def __init__(self, server: Server, decoder: Decoder, offload: Offload) -> None:
        """Args:
        server: what computes the answers.
        decoder: what decodes the requests.
        offload: where the answers are encoded.
        """
        self._server = server
        self._decoder = decoder
        self._offload = offload

    async def start(
        self, route: Route, headers: Headers, body: Body, held: Reservation
    ) -> tuple[asyncio.Future[InferenceResponse], OutputForm]:
        """As `InferEndpoint.start`.

        Args:
            route: what its path names.
            headers: its headers, names in lower case.
            body: its body.
            held: what it has reserved so far.
        """
        try:
            encoding = headers.get(b"content-encoding", b"").decode("latin-1")
            body = await self._decoder.decompress(encoding, body, held)
            request, form = await self._decode(route, headers, body, held)
            held.resize(max(len(body), inputs_bytes(request.inputs)))
            return self._server.infer(request), form
        except InvalidArgumentError:
            self._server.model(route.model, route.version)
            raise
        except TriuneError:
            raise
        except Exception as error:
            raise as_internal_error(error) from error

    async def _decode(
        self, route: Route, headers: Headers, body: Body, held: Reservation
    ) -> tuple[InferenceRequest, OutputForm]:
        size = headers.get(b"inference-header-content-length")
        header_bytes = None if size is None else parse_size(size)
        model, version = route.model, route.version
        if header_bytes == 0:
            config = self._server.config(model, version)
            if any(tensor.datatype in _LOOKED_AT for tensor in config.inputs.values()):
                return await self._offload.run(decode_raw_request, model, version, body, config)
            return decode_raw_request(model, version, body, config)
        json_bytes = len(body) if header_bytes is None else min(header_bytes, len(body))
        if json_bytes <= SMALL_BYTES:
            return await self._offload.run(decode_request, model, version, body, header_bytes)
        self._decoder.check_size(json_bytes)
        work = partial(parse_infer, model, version, header_bytes)
        request, form = await self._decoder.parse(work, body, json_bytes, held)
        await self._offload.run(unpack, request)
        return request, form

    async def finish(
        self, response: InferenceResponse, form: OutputForm, held: Reservation
    ) -> tuple[bytes, list[bytes | memoryview]]:
        """As `InferEndpoint.finish`, but for the compression. What is encoded is held beside the outputs."""
        try:
            parts, header_bytes = await self._offload.in_steps(encode_large_response(response, form), held)
        except TriuneError:
            raise
        except Exception as error:
            raise as_internal_error(error) from error
        return content_headers(header_bytes), parts

    async def encoding_of(self, headers: Headers, parts: list[bytes | memoryview]) -> str:
        """What to compress an answer with: "identity" where nothing is gained, or the client does not ask."""
        accepted = accepted_encoding(headers.get(b"accept-encoding", b"").decode("latin-1"))
        if accepted == "identity" or sum(map(len, parts)) < MIN_COMPRESSED_BYTES:
            return "identity"
        return accepted if await self._offload.run(is_worth_compressing, parts) else "identity"

    async def compress(self, encoding: str, parts: list[bytes | memoryview]) -> AsyncGenerator[bytes]:
        """The compressed answer, piece by piece."""
        work = Compression(encoding)
        for piece in pieces(parts):
            if compressed := await self._offload.run(work.add, piece):
                yield compressed
        yield await self._offload.run(work.end)
