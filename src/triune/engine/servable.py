"""A text model as a servable: requests and responses are tensors with the names of Triton's vLLM backend."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from triune.config.transformer import (
    ADDITIONAL_OUTPUTS,
    EXCLUDE_INPUT,
    SAMPLING_INPUT,
    STREAM_INPUT,
    TEXT_INPUT,
    TEXT_OUTPUT,
    flag_of,
)
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.requests import UNIT_PARAMETER, InferenceResponse
from triune.core.servable import Call
from triune.core.units import Unit
from triune.engine.counters import EngineCounters, EngineState
from triune.engine.generation import TextModel
from triune.engine.model_servable import ModelServable, ServedModel, text_of
from triune.engine.triton import read_generation
from triune.engine.triton_outputs import OF_TOKENS, TritonOutputs


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
        asked = _outputs(call)
        tokens = await self.model.tokenize(prompt) if asked & OF_TOKENS else ()
        request = replace(request, unit=unit, prompt=tokens or prompt)
        outputs = TritonOutputs(
            asked,
            request,
            before="" if excludes else prompt,
            is_streaming=is_streaming,
        )
        async with aclosing(self.model.generate(outputs.request)) as deltas:
            async for delta in deltas:
                outputs.add(delta)
                if outputs.is_done or (is_streaming and delta.text):
                    yield self.respond(call, await outputs.take(), is_final=outputs.is_done)

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


def _outputs(call: Call) -> frozenset[str]:
    """The outputs of a request: those that it names, if it names some, and of `ADDITIONAL_OUTPUTS` only those that it
    asks for by their inputs.
    """
    asked = {TEXT_OUTPUT, *(name for name in ADDITIONAL_OUTPUTS if _flag(call, flag_of(name)))}
    named = {output.name for output in call.request.outputs}
    return frozenset(asked & named if named else asked)


def _flag(call: Call, name: str, default: bool = False) -> bool:
    given = call.inputs.get(name)
    return default if given is None else bool(given[0])
