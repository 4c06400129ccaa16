"""A speech model as a servable: Triton's requests of tensors."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triune.config.speech import AUDIO_INPUT, LANGUAGE_INPUT, PROMPT_INPUT, SAMPLES_INPUT, TASK_INPUT, TEXT_OUTPUT
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceResponse
from triune.core.servable import Call, only_answer
from triune.core.statistics import ModelStatistics
from triune.engine.speech.segments import SpeechRequest

if TYPE_CHECKING:
    # It imports the library of tokenizers, which only servers of checkpoints need.
    from triune.engine.speech.engine import SpeechEngine

_TASKS = ("transcribe", "translate")


class SpeechServable:
    """A `Servable` of one audio file a request, as it is (`audio`) or as samples at 16 kHz (`samples`).

    Attributes:
        model: the speech model.
    """

    def __init__(self, model: "SpeechEngine", name: str, version: int) -> None:
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
        """See `Servable`."""
        return asyncio.ensure_future(self._answer(call, _content(call), _request(call)))

    def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """See `Servable`."""
        return only_answer(self, call)

    def refuse(self) -> None:
        """See `Servable`."""
        self.model.refuse()

    async def drain(self) -> None:
        """See `Servable`."""
        await self.model.drain()

    async def close(self) -> None:
        """See `Servable`."""
        await self.model.close()

    async def _answer(
        self, call: Call, content: bytes | NDArray[np.float32], request: SpeechRequest
    ) -> InferenceResponse:
        async with aclosing(self.model.transcribe(content, request)) as segments:
            texts = [segment.text async for segment in segments]
        output = np.array(["".join(texts).strip().encode()], np.object_)
        response = InferenceResponse(self._name, self._version, {TEXT_OUTPUT: output}, call.request.id)
        return response if call.finish is None else call.finish.convert(response)


def _content(call: Call) -> bytes | NDArray[np.float32]:
    audio, samples = call.inputs.get(AUDIO_INPUT), call.inputs.get(SAMPLES_INPUT)
    if (audio is None) == (samples is None):
        raise InvalidArgumentError(f"give one of '{AUDIO_INPUT}', a file, and '{SAMPLES_INPUT}', numbers at 16 kHz")
    if samples is not None:
        return samples
    assert audio is not None
    value = audio[0]
    return value.encode() if isinstance(value, str) else bytes(value)


def _request(call: Call) -> SpeechRequest:
    task = _text(call, TASK_INPUT) or _TASKS[0]
    if task not in _TASKS:
        raise InvalidArgumentError(f"'{TASK_INPUT}' is '{task[:32]}'; it must be one of {', '.join(_TASKS)}")
    return SpeechRequest(
        _text(call, LANGUAGE_INPUT) or None, translates=task == _TASKS[1], prompt=_text(call, PROMPT_INPUT)
    )


def _text(call: Call, name: str) -> str:
    array = call.inputs.get(name)
    if array is None:
        return ""
    value = array[0]
    try:
        return value if isinstance(value, str) else bytes(value).decode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(
            f"input '{name}' is not UTF-8: {error.reason} at byte {error.start}; encode the text as UTF-8"
        ) from None
