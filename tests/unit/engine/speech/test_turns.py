"""Files that wait for a place take turns with those that are read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import pytest
import pytest_asyncio

from support.listening import listening_servable, sound_of
from support.speech import as_flac, as_silence, decode_audio
from triune.engine.speech.audio import RATE, AudioDecoder
from triune.engine.speech.engine import SpeechEngine
from triune.engine.speech.held_audio import HeldAudio
from triune.engine.speech.mel import WINDOW_SAMPLES
from triune.engine.speech.segments import SpeechRequest

pytestmark = pytest.mark.asyncio

LONG = np.concatenate(
    [np.concatenate([sound_of(digit), np.zeros(30 * RATE, np.float32)])[: 30 * RATE] for digit in (5, 6)]
)
SECONDS = 30

REQUEST = SpeechRequest(temperature=0.6)
"""From there on a window is not told what was read before it, which the scripted decoder would not understand."""


@pytest_asyncio.fixture
async def model() -> AsyncIterator[SpeechEngine]:
    servable = listening_servable("digits", max_running=1)
    assert isinstance(servable.model, SpeechEngine)
    yield servable.model
    await servable.close()


async def digits(model: SpeechEngine, content: np.ndarray, order: list[str]) -> str:
    found = ""
    async with aclosing(model.transcribe(content, REQUEST)) as segments:
        async for segment in segments:
            order.append(segment.text.strip())
            found += segment.text.strip()
    return found


async def test_a_file_is_read_between_the_windows_of_a_longer_one(model: SpeechEngine) -> None:
    order: list[str] = []
    found = await asyncio.gather(*(digits(model, each, order) for each in (LONG, sound_of(3))))
    assert found == ["56", "3"]
    assert order == ["5", "3", "6"]


async def test_a_client_that_does_not_read_on_keeps_no_place(model: SpeechEngine) -> None:
    async with aclosing(model.transcribe(LONG, REQUEST)) as slow:
        assert (await anext(slow)).text.strip() == "5"
        async with asyncio.timeout(SECONDS):
            assert await digits(model, sound_of(3), []) == "3"
        assert (await anext(slow)).text.strip() == "6"


async def test_a_long_file_is_decoded_as_far_as_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    take = AudioDecoder.take

    def noted(decoder: AudioDecoder) -> np.ndarray:
        found = take(decoder)
        taken.append(len(found))
        return found

    monkeypatch.setattr(AudioDecoder, "take", noted)
    audio = HeldAudio(as_silence(600), 600)
    assert len(await audio.window(0)) == WINDOW_SAMPLES
    assert len(taken) == 1
    assert taken[0] < 600 * RATE / 4
    last = 600 * RATE - 100
    assert await audio.has_more(last - 100)
    assert sum(taken) == 600 * RATE
    assert not await audio.has_more(last)
    assert len(await audio.window(last)) == 100


@pytest.mark.parametrize("step", [WINDOW_SAMPLES, 7 * RATE])
async def test_windows_of_a_file_are_those_of_its_samples(step: int) -> None:
    content = as_flac(times=40, pause_seconds=1)
    samples = decode_audio(content, 600)
    file, given = HeldAudio(content, 600), HeldAudio(samples, 600)
    for at in range(0, len(samples), step):
        expected = samples[at : at + WINDOW_SAMPLES]
        np.testing.assert_array_equal(await file.window(at), expected)
        np.testing.assert_array_equal(await given.window(at), expected)
        assert await file.has_more(at + step) is await given.has_more(at + step) is (len(samples) - at - step >= 160)
