"""A text model as a servable: Triton's requests of tensors, as its vLLM backend takes them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import numpy as np

from triune.config.transformer import EXCLUDE_INPUT, SAMPLING_INPUT, STREAM_INPUT, TEXT_INPUT, TEXT_OUTPUT
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.requests import UNIT_PARAMETER, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.engine.counters import EngineCounters, EngineState
from triune.engine.generation import Generation, TextModel
from triune.engine.triton import read_generation


class ServedTextModel(TextModel, Protocol):
    """A text model with what a server asks of it beside."""

    @property
    def statistics(self) -> ModelStatistics:
        """Triton's counters."""
        ...

    @property
    def counters(self) -> EngineCounters:
        """The counts of tokens."""
        ...

    @property
    def state(self) -> EngineState:
        """What the engine holds at this moment."""
        ...

    def refuse(self) -> None:
        """See `Servable`."""
        ...

    async def drain(self) -> None:
        """See `Servable`."""
        ...

    async def close(self) -> None:
        """See `Servable`."""
        ...


class TextServable:
    """Answers requests of tensors with a text model. A request is one prompt; see `triton.read_generation`.

    Attributes:
        model: the text model.
    """

    def __init__(self, model: ServedTextModel, name: str, version: int) -> None:
        """Args:
        model: closed by `close`.
        name: the model's name, for responses and errors.
        version: its version.
        """
        self.model = model
        self._name = name
        self._version = version

    @property
    def statistics(self) -> ModelStatistics:
        """See `Servable`."""
        return self.model.statistics

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        """Refuse the request: a client must be ready for any number of responses.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(f"model '{self._name}' is decoupled: use the streaming interface")

    async def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """See `Servable`. Without the input `stream` there is one response, with whole answers."""
        prompt = _text(call.inputs[TEXT_INPUT], TEXT_INPUT)
        is_streaming = _flag(call, STREAM_INPUT)
        excludes = _flag(call, EXCLUDE_INPUT, is_streaming)
        if is_streaming and not excludes:
            raise InvalidArgumentError(f"'{EXCLUDE_INPUT}' is false, which needs '{STREAM_INPUT}' to be false, too")
        given = call.inputs.get(SAMPLING_INPUT)
        text = None if given is None else _text(given, SAMPLING_INPUT)
        parameters = dict(call.request.parameters)
        unit = parameters.pop(UNIT_PARAMETER, None)
        if unit not in (None, self.model.placement.unit.value):
            raise InvalidArgumentError(
                f"parameter '{UNIT_PARAMETER}' is {unit!r}; model '{self._name}' runs on "
                f"'{self.model.placement.unit.value}'"
            )
        request = read_generation(prompt, text, parameters, max(0, call.request.priority - 1))
        answers = self._deltas(request) if is_streaming else self._whole(request, "" if excludes else prompt)
        async with aclosing(answers):
            async for texts, is_final in answers:
                response = self._response(call, texts, is_final=is_final)
                yield response if call.finish is None else call.finish.convert(response)

    def refuse(self) -> None:
        """See `Servable`."""
        self.model.refuse()

    async def drain(self) -> None:
        """See `Servable`."""
        await self.model.drain()

    async def close(self) -> None:
        """See `Servable`."""
        await self.model.close()

    async def _deltas(self, request: Generation) -> AsyncGenerator[tuple[list[str], bool]]:
        """What each answer grew by, and whether nothing follows."""
        num_open = request.num_answers
        async with aclosing(self.model.generate(request)) as deltas:
            async for delta in deltas:
                num_open -= delta.finish_reason is not None
                if delta.text or not num_open:
                    texts = [""] * request.num_answers
                    texts[delta.index] = delta.text
                    yield texts, not num_open

    async def _whole(self, request: Generation, before: str) -> AsyncGenerator[tuple[list[str], bool]]:
        """All answers at once, each with `before` before it."""
        parts: list[list[str]] = [[before] for _ in range(request.num_answers)]
        async with aclosing(self.model.generate(request)) as deltas:
            async for delta in deltas:
                parts[delta.index].append(delta.text)
        yield ["".join(each) for each in parts], True

    def _response(self, call: Call, texts: list[str], *, is_final: bool) -> InferenceResponse:
        output = np.array([text.encode() for text in texts], np.object_)
        outputs: dict[str, Array] = {TEXT_OUTPUT: output}
        return InferenceResponse(self._name, self._version, outputs, call.request.id, is_final=is_final)


def _flag(call: Call, name: str, default: bool = False) -> bool:
    given = call.inputs.get(name)
    return default if given is None else bool(given[0])


def _text(array: Array, name: str) -> str:
    value = array[0]
    try:
        return value if isinstance(value, str) else bytes(value).decode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(
            f"input '{name}' is not UTF-8: {error.reason} at byte {error.start}; encode the text as UTF-8"
        ) from None
