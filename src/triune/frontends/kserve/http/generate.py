"""Triton's generate extension over HTTP; streams are server-sent events.

Source: Triton's generate protocol extension.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import TypeVar, cast

from starlette.requests import Request
from starlette.responses import Response

from triune.core.errors import InvalidArgumentError, TriuneError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.frontends.bodies.budget import Reservation
from triune.frontends.bodies.event_streams import open_stream, while_connected
from triune.frontends.bodies.offload import SMALL_BYTES, Offload, run_all
from triune.frontends.bodies.reader import BodyReader
from triune.frontends.bodies.responses import HeldResponse
from triune.frontends.defects import as_internal_error
from triune.frontends.kserve.http.generate_codec import ModelInputs, encode_generate, parse_generate
from triune.frontends.kserve.http.statuses import error_body
from triune.frontends.kserve.http.versions import version_of
from triune.frontends.kserve.large_tensors import encoded_bytes, memory_bytes, unpack
from triune.serving.server import Server

T = TypeVar("T")


class Generate:
    """The endpoints `generate` and `generate_stream`."""

    def __init__(self, server: Server, bodies: BodyReader, offload: Offload) -> None:
        """Args:
        server: the server.
        bodies: reads and parses request bodies.
        offload: the threads that encode large responses.
        """
        self._server = server
        self._bodies = bodies
        self._offload = offload

    async def generate(self, request: Request) -> Response:
        """`POST .../generate`: a request with exactly one response."""
        held = self._bodies.reserve()
        try:
            inference = await self._decode(request, held)
            answer = await while_connected(request, self._only(inference, held))
            held.resize(len(answer))
        except BaseException:
            held.release()
            raise
        return HeldResponse(answer, held)

    async def generate_stream(self, request: Request) -> Response:
        """`POST .../generate_stream`: each response is an event. An error before the first event is a plain error."""
        held = self._bodies.reserve()
        try:
            inference = await self._decode(request, held)
            responses = _nonempty(self._server.stream(inference))
            return await open_stream(request, self._events(responses, held), held, _error_event)
        except BaseException:
            held.release()
            raise

    async def _decode(self, request: Request, held: Reservation) -> InferenceRequest:
        version = version_of(request)
        model = ModelInputs.of(self._server.config(request.path_params["model"], version), version)
        inference = await self._bodies.parse(request, partial(parse_generate, model), held)
        if held.num_bytes <= SMALL_BYTES:
            unpack(inference)
        else:
            await self._offload.run_sized(held.num_bytes, unpack, inference)
        held.resize(memory_bytes(inference.inputs))
        return inference

    async def _encode(self, response: InferenceResponse, held: Reservation) -> bytes:
        """Encode a response. The reservation grows by the text's size, and is then reduced to the text's size."""
        if encoded_bytes(response.outputs) <= SMALL_BYTES:
            return run_all(encode_generate(response))
        before = held.num_bytes
        held.grow(memory_bytes(response.outputs))
        text = await self._offload.in_steps(encode_generate(response), held)
        held.resize(before + len(text))
        return text

    async def _only(self, inference: InferenceRequest, held: Reservation) -> bytes:
        answers: list[InferenceResponse] = []
        async with contextlib.aclosing(_nonempty(self._server.stream(inference))) as responses:
            async for response in responses:
                answers.append(response)
                if len(answers) > 1:
                    break
        if len(answers) != 1:
            raise InvalidArgumentError(
                f"model '{inference.model}' gave {'more than one response' if answers else 'no response'}, and "
                "'generate' returns exactly one: use 'generate_stream'"
            )
        return await self._encode(answers[0], held)

    async def _events(self, responses: AsyncGenerator[InferenceResponse], held: Reservation) -> AsyncGenerator[bytes]:
        async with contextlib.aclosing(responses):
            async for response in responses:
                before = held.num_bytes
                yield b"data: %s\n\n" % await self._encode(response, held)
                held.resize(before)


def _error_event(error: Exception) -> bytes:
    return b"data: %s\n\n" % error_body(str(error if isinstance(error, TriuneError) else as_internal_error(error)))


async def _nonempty(responses: AsyncIterator[InferenceResponse]) -> AsyncGenerator[InferenceResponse, None]:
    """Yield the responses, without the final one if that is empty."""
    async with contextlib.aclosing(cast("AsyncGenerator[InferenceResponse, None]", responses)) as iterator:
        async for response in iterator:
            if response.outputs or not response.is_final:
                yield response
