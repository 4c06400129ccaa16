"""A text model as a servable: requests and responses are tensors with the names of Triton's vLLM backend."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import numpy as np

from triune.config.transformer import EXCLUDE_INPUT, SAMPLING_INPUT, STREAM_INPUT, TEXT_INPUT, TEXT_OUTPUT
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.requests import UNIT_PARAMETER, InferenceResponse
from triune.core.servable import Call
from triune.core.units import Unit
from triune.engine.counters import EngineCounters, EngineState
from triune.engine.generation import Generation, TextModel
from triune.engine.model_servable import ModelServable, ServedModel, text_of
from triune.engine.triton import read_generation


class ServedTextModel(TextModel, ServedModel, Protocol):
    """A text model, with the further properties that the server reads."""

    @property
    def counters(self) -> EngineCounters:
        """The totals of tokens, and the times between them."""
        ...

    @property
    def state(self) -> EngineState:
        """The sums of the states of all units."""
        ...

    @property
    def states(self) -> Mapping[Unit, EngineState]:
        """The state of each unit."""
        ...

    @property
    def moves(self) -> Mapping[tuple[Unit, Unit, str], int]:
        """The number of answers that were moved, by (from unit, to unit, reason)."""
        ...


class TextServable(ModelServable[ServedTextModel]):
    """Answers requests, whose inputs are tensors, with a text model. A request is one prompt; see
    `triton.read_generation`.
    """

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        """Refuse the request, since the model may give any number of responses to it.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(f"model '{self._name}' is decoupled: use the streaming interface")

    async def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """Generate the answer: see `Servable.stream`. Without the input `stream` there is one response with the whole
        answers.
        """
        prompt = text_of(call, TEXT_INPUT)
        is_streaming = _flag(call, STREAM_INPUT)
        excludes = _flag(call, EXCLUDE_INPUT, is_streaming)
        if is_streaming and not excludes:
            raise InvalidArgumentError(f"'{EXCLUDE_INPUT}' is false, which needs '{STREAM_INPUT}' to be false, too")
        text = text_of(call, SAMPLING_INPUT) if SAMPLING_INPUT in call.inputs else None
        parameters = dict(call.request.parameters)
        unit = self._unit(parameters.pop(UNIT_PARAMETER, None))
        request = read_generation(prompt, text, parameters, max(0, call.request.priority - 1))
        request = replace(request, unit=unit)
        answers = self._deltas(request) if is_streaming else self._whole(request, "" if excludes else prompt)
        async with aclosing(answers):
            async for texts, is_final in answers:
                output = np.array([text.encode() for text in texts], np.object_)
                yield self.respond(call, {TEXT_OUTPUT: output}, is_final=is_final)

    def _unit(self, name: object) -> Unit | None:
        """The unit that a request names; None if it names none. Raises InvalidArgumentError if the model does not run
        on it.
        """
        if name is None:
            return None
        for unit in self.model.states:
            if unit.value == name:
                return unit
        raise InvalidArgumentError(
            f"parameter '{UNIT_PARAMETER}' is {name!r}; model '{self._name}' runs on "
            f"{', '.join(repr(unit.value) for unit in self.model.states)}"
        )

    async def _deltas(self, request: Generation) -> AsyncGenerator[tuple[list[str], bool]]:
        """Yield the new texts of the answers, and whether they are the last."""
        num_open = request.num_answers
        async with aclosing(self.model.generate(request)) as deltas:
            async for delta in deltas:
                num_open -= delta.finish_reason is not None
                if delta.text or not num_open:
                    texts = [""] * request.num_answers
                    texts[delta.index] = delta.text
                    yield texts, not num_open

    async def _whole(self, request: Generation, before: str) -> AsyncGenerator[tuple[list[str], bool]]:
        """Generate all answers, and yield them together as texts, each preceded by the text `before`."""
        parts: list[list[str]] = [[before] for _ in range(request.num_answers)]
        async with aclosing(self.model.generate(request)) as deltas:
            async for delta in deltas:
                parts[delta.index].append(delta.text)
        yield ["".join(each) for each in parts], True


def _flag(call: Call, name: str, default: bool = False) -> bool:
    given = call.inputs.get(name)
    return default if given is None else bool(given[0])
