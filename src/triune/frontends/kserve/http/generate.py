"""Triton's generate extension over HTTP; streams are server-sent events.

Source: Triton's generate protocol extension.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from functools import partial
from typing import Any, TypeVar, cast

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from triune.core.errors import CancelledError as RequestCancelledError
from triune.core.errors import InvalidArgumentError, TriuneError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.frontends.kserve.body import BodyReader, HeldResponse, version_of
from triune.frontends.kserve.budget import Reservation
from triune.frontends.kserve.http.generate_codec import ModelInputs, encode_generate, parse_generate
from triune.frontends.kserve.http.infer import as_internal_error
from triune.frontends.kserve.http.statuses import error_body
from triune.frontends.kserve.large_tensors import encoded_bytes, memory_bytes, unpack
from triune.frontends.kserve.offload import SMALL_BYTES, Offload, run_all
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
            answer = await _while_connected(request, self._only(inference, held))
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
            try:
                first = await _while_connected(request, self._first(responses, held))
            except BaseException:
                await responses.aclose()
                raise
        except BaseException:
            held.release()
            raise
        return _EventStream(self._events(first, responses, held), held)

    async def _decode(self, request: Request, held: Reservation) -> InferenceRequest:
        version = version_of(request)
        model = ModelInputs.of(self._server.config(request.path_params["model"], version), version)
        inference = await self._bodies.parse(request, partial(parse_generate, model), held)
        if held.num_bytes <= SMALL_BYTES:
            unpack(inference)
        else:
            await self._offload.run(unpack, inference)
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

    async def _first(self, responses: AsyncGenerator[InferenceResponse], held: Reservation) -> list[bytes]:
        """The first response, encoded; an empty list if there is none."""
        async for response in responses:
            return [await self._encode(response, held)]
        return []

    async def _events(
        self, first: list[bytes], responses: AsyncGenerator[InferenceResponse, None], held: Reservation
    ) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(responses):
            for answer in first:
                yield b"data: %s\n\n" % answer
            try:
                async for response in responses:
                    before = held.num_bytes
                    yield b"data: %s\n\n" % await self._encode(response, held)
                    held.resize(before)
            except TriuneError as error:
                yield b"data: %s\n\n" % error_body(str(error))
            # The status was sent already: report the error as an event.
            except Exception as error:  # noqa: BLE001
                yield b"data: %s\n\n" % error_body(str(as_internal_error(error)))


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled if the client closes the connection before.

    Raises:
        CancelledError: the client closed the connection (the error of `triune.core.errors`).
    """
    task = asyncio.ensure_future(work)
    # The body has been read, so what is received next is the client's disconnection.
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


async def _nonempty(responses: AsyncIterator[InferenceResponse]) -> AsyncGenerator[InferenceResponse, None]:
    """Skip an empty final response."""
    async with contextlib.aclosing(cast("AsyncGenerator[InferenceResponse, None]", responses)) as iterator:
        async for response in iterator:
            if response.outputs or not response.is_final:
                yield response


class _EventStream(StreamingResponse):
    """Server-sent events. However sending ends, the generator is closed, which cancels the inference."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], held: Reservation) -> None:
        super().__init__(events)
        self._events = events
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            async with contextlib.aclosing(self._events):
                await super().__call__(scope, receive, send)
