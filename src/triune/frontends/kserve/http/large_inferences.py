"""Decodes and encodes large inference requests of HTTP in threads and processes, off the event loop."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

from triune.core.datatypes import DataType
from triune.core.errors import TriuneError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.frontends.bodies.budget import Reservation
from triune.frontends.bodies.compression import (
    MIN_COMPRESSED_BYTES,
    Body,
    Compression,
    accepted_encoding,
    is_worth_compressing,
    pieces,
)
from triune.frontends.bodies.decoder import Decoder
from triune.frontends.bodies.offload import SMALL_BYTES, Offload
from triune.frontends.defects import as_internal_error
from triune.frontends.kserve.http.codec import OutputForm, decode_request
from triune.frontends.kserve.http.infer import (
    Headers,
    Route,
    content_headers,
    parse_size,
    raise_failure,
)
from triune.frontends.kserve.http.large_requests import encode_large_response, parse_infer
from triune.frontends.kserve.http.raw_request import decode_raw_request
from triune.frontends.kserve.large_tensors import memory_bytes, unpack
from triune.frontends.kserve.power import HEADER_BYTES, in_mode
from triune.serving.server import Server

# Datatypes whose elements must be checked one by one.
_CHECKED = (DataType.BYTES, DataType.BOOL)


class LargeInferences:
    """Serves large inference requests; `InferEndpoint` serves the small ones."""

    def __init__(self, server: Server, decoder: Decoder, offload: Offload) -> None:
        """Args:
        server: the server.
        decoder: decompresses and parses the requests.
        offload: the threads that encode the responses.
        """
        self._server = server
        self._decoder = decoder
        self._offload = offload

    async def start(
        self, route: Route, headers: Headers, body: Body, held: Reservation
    ) -> tuple[asyncio.Future[InferenceResponse], OutputForm]:
        """Decode a large request, and submit it to the server; as `InferEndpoint.start` does for small ones.

        Args:
            route: the model and version.
            headers: the headers, with names in lower case.
            body: the body.
            held: the request's reservation of memory.
        """
        try:
            encoding = headers.get(b"content-encoding", b"").decode("latin-1")
            body = await self._decoder.decompress(encoding, body, held)
            request, form = await self._decode(route, headers, body, held)
            held.resize(max(len(body), memory_bytes(request.inputs)))
            return self._server.infer(in_mode(request, headers.get(HEADER_BYTES))), form
        except Exception as error:  # noqa: BLE001 - it is raised, as what a client may see
            raise_failure(error, route, self._server)

    async def _decode(
        self, route: Route, headers: Headers, body: Body, held: Reservation
    ) -> tuple[InferenceRequest, OutputForm]:
        size = headers.get(b"inference-header-content-length")
        header_bytes = None if size is None else parse_size(size)
        model, version = route.model, route.version
        if header_bytes == 0:
            config = self._server.config(model, version)
            if any(tensor.datatype in _CHECKED for tensor in config.inputs.values()):
                return await self._offload.run_sized(len(body), decode_raw_request, model, version, body, config)
            return decode_raw_request(model, version, body, config)
        json_bytes = len(body) if header_bytes is None else min(header_bytes, len(body))
        if json_bytes <= SMALL_BYTES:
            return await self._offload.run_sized(len(body), decode_request, model, version, body, header_bytes)
        self._decoder.check_size(json_bytes)
        work = partial(parse_infer, model, version, header_bytes)
        request, form = await self._decoder.parse(work, body, json_bytes, held)
        await self._offload.run_sized(len(body), unpack, request)
        return request, form

    async def finish(
        self, response: InferenceResponse, form: OutputForm, held: Reservation
    ) -> tuple[bytes, list[bytes | memoryview]]:
        """Encode a large response, without compression. The reservation grows by the encoded size."""
        try:
            parts, header_bytes = await self._offload.in_steps(encode_large_response(response, form), held)
        except TriuneError:
            raise
        except Exception as error:
            raise as_internal_error(error) from error
        return content_headers(header_bytes), parts

    async def encoding_of(self, headers: Headers, parts: list[bytes | memoryview]) -> str:
        """The encoding for compressing a response; "identity" if the client accepts none, or it would not become
        smaller.
        """
        accepted = accepted_encoding(headers.get(b"accept-encoding", b"").decode("latin-1"))
        if accepted == "identity" or sum(map(len, parts)) < MIN_COMPRESSED_BYTES:
            return "identity"
        return accepted if await self._offload.run(is_worth_compressing, parts) else "identity"

    async def compress(self, encoding: str, parts: list[bytes | memoryview]) -> AsyncGenerator[bytes]:
        """Compress a response piece by piece."""
        work = Compression(encoding)
        for piece in pieces(parts):
            if compressed := await self._offload.run(work.add, piece):
                yield compressed
        yield await self._offload.run(work.end)
