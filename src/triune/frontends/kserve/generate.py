"""Triton's generate extension: inputs by name in a flat JSON object, outputs likewise; streams as server-sent events.

Source: Triton's generate protocol extension.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, cast

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from triune.core.datatypes import Array
from triune.core.errors import CancelledError as RequestCancelledError
from triune.core.errors import InvalidArgumentError, TriuneError
from triune.core.requests import InferenceRequest, InferenceResponse, Parameter
from triune.core.tensors import format_shape
from triune.frontends.kserve.http_body import JsonResponse, read_object, version_of
from triune.frontends.kserve.http_infer import as_internal_error
from triune.frontends.kserve.http_parameters import as_object, as_string, decode_parameter
from triune.frontends.kserve.json_tensors import decode_json, encode_json
from triune.frontends.kserve.statuses import error_body
from triune.repository.config import ModelConfig, TensorConfig
from triune.serving.server import Server


def decode_generate(document: Mapping[str, Any], version: int | None, config: ModelConfig) -> InferenceRequest:
    """The inference that a generate request asks for.

    A key that is an input's name gives its value, as one element or a flat array; `parameters` may hold such keys
    too; every other key is a parameter.

    Raises:
        InvalidArgumentError: a value is no such tensor, or no parameter.
    """
    fields = dict(document)
    request_id = as_string(fields.pop("id", ""), "'id'")
    nested = as_object(fields.pop("parameters", {}), "'parameters'")
    twice = fields.keys() & nested.keys()
    if twice:
        raise InvalidArgumentError(f"'{min(twice)}' is given twice, in the request and in its 'parameters'")
    inputs: dict[str, Array] = {}
    parameters: dict[str, Parameter] = {}
    has_batch = config.batching.max_batch_size > 0
    for name, value in (fields | nested).items():
        tensor = config.inputs.get(name)
        if tensor is None:
            parameters[name] = decode_parameter(name, value)
        else:
            inputs[name] = _decode_input(tensor, value, has_batch=has_batch)
    return InferenceRequest(
        config.name,
        inputs,
        version,
        id=request_id,
        parameters=parameters,
        priority=cast(int, parameters.pop("priority", 0)),
        timeout_us=cast(int, parameters.pop("timeout", 0)),
    )


def _decode_input(tensor: TensorConfig, value: Any, *, has_batch: bool) -> Array:
    elements = cast("list[Any]", value) if isinstance(value, list) else [value]
    dims = (-1, *tensor.dims) if has_batch else tensor.dims
    shape = _fill(dims, len(elements))
    if shape is None:
        raise InvalidArgumentError(
            f"{len(elements)} elements cannot fill input '{tensor.name}' of shape {format_shape(dims)}"
        )
    return decode_json(tensor.name, tensor.datatype, shape, elements)


def _fill(dims: tuple[int, ...], num_elements: int) -> tuple[int, ...] | None:
    """`dims` with the innermost free dimension taking all elements that are left, the other free ones 1."""
    left = num_elements
    for dim in dims:
        if dim != -1:
            if dim == 0 or left % dim:
                return None
            left //= dim
    shape: list[int] = []
    for dim in reversed(dims):
        if dim == -1:
            shape.append(left)
            left = 1
        else:
            shape.append(dim)
    return tuple(reversed(shape)) if left == 1 else None


def encode_generate(response: InferenceResponse) -> bytes:
    """The JSON object of a response: parameters and outputs side by side, an output of one element without its array.

    Raises:
        InvalidArgumentError: an output has no JSON form.
    """
    document: dict[str, object] = {}
    if response.id:
        document["id"] = response.id
    document["model_name"] = response.model
    document["model_version"] = str(response.version)
    document.update(response.parameters)
    for name, array in response.outputs.items():
        text = encode_json(name, array)
        document[name] = orjson.Fragment(text[1:-1] if array.size == 1 else text)
    return orjson.dumps(document)


class Generate:
    """The two endpoints."""

    def __init__(self, server: Server, max_request_bytes: int) -> None:
        self._server = server
        self._max_request_bytes = max_request_bytes

    async def generate(self, request: Request) -> Response:
        """`POST .../generate`: exactly one response."""
        inference = await self._decode(request)
        work = asyncio.ensure_future(self._only(inference))
        gone = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
        if work.cancelled() or not work.done():
            raise RequestCancelledError("the client closed the connection")
        return JsonResponse(work.result())

    async def generate_stream(self, request: Request) -> Response:
        """`POST .../generate_stream`: each response an event. An error before the first is a plain error."""
        inference = await self._decode(request)
        responses = _nonempty(self._server.stream(inference))
        try:
            first = [encode_generate(await anext(responses))]
        except StopAsyncIteration:
            first = []
        except BaseException:
            await responses.aclose()
            raise
        return _EventStream(_events(first, responses))

    async def _decode(self, request: Request) -> InferenceRequest:
        name = request.path_params["model"]
        version = version_of(request)
        document = await read_object(request, self._max_request_bytes)
        return decode_generate(document, version, self._server.config(name, version))

    async def _only(self, inference: InferenceRequest) -> bytes:
        answers: list[bytes] = []
        async with contextlib.aclosing(_nonempty(self._server.stream(inference))) as responses:
            async for response in responses:
                answers.append(encode_generate(response))
                if len(answers) > 1:
                    break
        if len(answers) != 1:
            raise InvalidArgumentError(
                f"model '{inference.model}' gave {'more than one response' if answers else 'no response'}, and "
                "'generate' returns exactly one: use 'generate_stream'"
            )
        return answers[0]


async def _nonempty(responses: AsyncIterator[InferenceResponse]) -> AsyncGenerator[InferenceResponse, None]:
    """The responses, without a last one that only says that it is the last."""
    async with contextlib.aclosing(cast("AsyncGenerator[InferenceResponse, None]", responses)) as iterator:
        async for response in iterator:
            if response.outputs or not response.is_final:
                yield response


async def _events(
    first: list[bytes], responses: AsyncGenerator[InferenceResponse, None]
) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(responses):
        for answer in first:
            yield b"data: %s\n\n" % answer
        try:
            async for response in responses:
                yield b"data: %s\n\n" % encode_generate(response)
        except TriuneError as error:
            yield b"data: %s\n\n" % error_body(str(error))
        # The status is sent already: an event is the only way left to say that the rest will not come.
        except Exception as error:  # noqa: BLE001
            yield b"data: %s\n\n" % error_body(str(as_internal_error(error)))


class _EventStream(StreamingResponse):
    """Server-sent events; the generator is closed however the sending ends, so that its inference is cancelled."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(events)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(self._events):
            await super().__call__(scope, receive, send)
