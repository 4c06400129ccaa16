"""A speech model as a servable, for Triton's requests, whose inputs are tensors."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from triune.config.speech import AUDIO_INPUT, LANGUAGE_INPUT, PROMPT_INPUT, SAMPLES_INPUT, TASK_INPUT, TEXT_OUTPUT
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceResponse
from triune.core.servable import Call, only_answer
from triune.engine.model_servable import ModelServable, text_of
from triune.engine.speech.segments import ServedSpeechModel, SpeechRequest

_TASKS = ("transcribe", "translate")


class SpeechServable(ModelServable[ServedSpeechModel]):
    """A `Servable` whose requests have one audio file each, either as bytes (`audio`) or as samples at 16 kHz
    (`samples`).
    """

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        """Implements `Servable.submit`."""
        return asyncio.ensure_future(self._answer(call, _content(call), _request(call)))

    def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """Implements `Servable.stream`."""
        return only_answer(self, call)

    async def _answer(
        self, call: Call, content: bytes | NDArray[np.float32], request: SpeechRequest
    ) -> InferenceResponse:
        async with aclosing(self.model.transcribe(content, request)) as segments:
            texts = [segment.text async for segment in segments]
        output = np.array(["".join(texts).strip().encode()], np.object_)
        return self.respond(call, {TEXT_OUTPUT: output})


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
    task = text_of(call, TASK_INPUT) or _TASKS[0]
    if task not in _TASKS:
        raise InvalidArgumentError(f"'{TASK_INPUT}' is '{task[:32]}'; it must be one of {', '.join(_TASKS)}")
    return SpeechRequest(
        text_of(call, LANGUAGE_INPUT) or None, translates=task == _TASKS[1], prompt=text_of(call, PROMPT_INPUT)
    )
