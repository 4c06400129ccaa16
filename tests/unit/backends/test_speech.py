"""From a folder with Whisper to a model that reads speech."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from support.speech import GOFORWARD, as_flac, as_silence, decode_audio, words, write_whisper
from triune.backends.attempt import Attempt
from triune.backends.speech import build as building
from triune.backends.speech.backend import SpeechBackend
from triune.config.configure import Source, read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import (
    InvalidArgumentError,
    NoMemoryError,
    PayloadTooLargeError,
    TriuneError,
    UnavailableError,
    UnsupportedError,
)
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.engine.speech.encoder import SpeechEncoder
from triune.engine.speech.segments import Segment, SpeechRequest
from triune.engine.speech.servable import SpeechServable
from triune.hardware.memory import Memory
from triune.runtimes.machine import this_machine
from triune.zoo.packages import PackageCache

pytest.importorskip("openvino")

SAID = ["go", "forward", "ten", "meters"]
CONFIG = 'parameters { key: "max_audio_seconds" value { string_value: "120" } }\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, packages: PackageCache) -> Path:
    return write_whisper(tmp_path_factory.mktemp("speech"), packages)


def source(folder: Path, config: str = "") -> Source:
    (folder / "config.pbtxt").write_text(config)
    return read_source("whisper", folder, stamp(folder), supports=lambda _: SpeechBackend.supports)


def backend() -> SpeechBackend:
    return SpeechBackend(this_machine(), MonotonicClock())


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(folder: Path) -> AsyncIterator[SpeechServable]:
    made = backend()
    build = made.build(source(folder, CONFIG), 1, None, Attempt())
    assert "speech in English" in str(build)
    servable = made.assemble(build, None)  # type: ignore[arg-type]
    assert isinstance(servable, SpeechServable)
    yield servable
    await servable.close()


async def transcript(served: SpeechServable, content: bytes, request: SpeechRequest | None = None) -> list[Segment]:
    async with aclosing(served.model.transcribe(content, request or SpeechRequest())) as segments:
        return [each async for each in segments]


async def infer(served: SpeechServable, **inputs: np.ndarray) -> str:
    response = await served.submit(Call(InferenceRequest("whisper", inputs, id="7"), inputs, 1))
    assert response.id == "7"
    return response.outputs["text_output"][0].decode()


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_it_is_found_by_its_files(folder: Path) -> None:
    found = source(folder)
    assert found.message.backend == "speech"
    config = backend().configure(found, 1)
    assert (list(config.outputs), config.is_decoupled) == (["text_output"], False)


async def test_an_mp3_is_read(served: SpeechServable) -> None:
    (segment,) = await transcript(served, GOFORWARD.read_bytes())
    assert words(segment.text) == SAID
    assert segment.start < 1 < segment.end <= 2.7
    assert segment.temperature == 0
    assert segment.no_speech < 0.5
    assert segment.mean_logprob > -1


async def test_files_longer_than_a_window_and_several_at_a_time(served: SpeechServable) -> None:
    contents = [as_flac(times=3, pause_seconds=20), as_flac(), as_flac(times=2, pause_seconds=1)]
    found = await asyncio.gather(*(transcript(served, each) for each in contents))
    alone = [await transcript(served, each) for each in contents]
    for segments, others in zip(found, alone, strict=True):
        assert [each.text for each in segments] == [each.text for each in others]
    assert words("".join(each.text for each in found[2])) == SAID * 2
    long = found[0]
    assert words("".join(each.text for each in long)) == SAID * 3
    # Each begins where it is said, in more than one window.
    assert [round(each.start / 23) for each in long] == [0, 1, 2]
    assert len({each.seek for each in long}) > 1
    assert all(one.end <= other.start for one, other in itertools.pairwise(long))


@pytest.mark.parametrize(("volume", "is_heard"), [(1.0, True), (0.01, True), (0.0, False)])
async def test_silence_has_no_text_and_faint_speech_has(served: SpeechServable, volume: float, is_heard: bool) -> None:
    samples = decode_audio(GOFORWARD.read_bytes(), 60) * np.float32(volume)
    async with aclosing(served.model.transcribe(samples, SpeechRequest())) as segments:
        found = "".join([each.text async for each in segments])
    assert words(found) == (SAID if is_heard else [])


async def test_a_hum_of_the_mains_has_no_text(served: SpeechServable) -> None:
    samples = 0.05 * np.sin(2 * np.pi * 50 * np.arange(64_000) / 16_000)
    async with aclosing(served.model.transcribe(samples.astype(np.float32), SpeechRequest())) as segments:
        assert [each async for each in segments] == []


async def test_speech_between_pauses_is_read(served: SpeechServable) -> None:
    segments = await transcript(served, as_flac(times=2, pause_seconds=31))
    assert words("".join(each.text for each in segments)) == SAID * 2
    assert await transcript(served, as_silence(31)) == []


SAID_AT = [(" Go", 0.0, 0.82), (" forward", 0.82, 1.1), (" 10", 1.1, 1.62), (" meters.", 1.62, 1.94)]
"""When the words are said, by faster-whisper 1.2.1 over the same weights in fp32."""


async def test_words_have_times(served: SpeechServable) -> None:
    (segment,) = await transcript(served, GOFORWARD.read_bytes(), SpeechRequest(has_words=True))
    assert [each.text for each in segment.words] == [text for text, _, _ in SAID_AT]
    assert "".join(each.text for each in segment.words) == segment.text
    for word, (_, start, end) in zip(segment.words, SAID_AT, strict=True):
        assert word.start == pytest.approx(start, abs=0.07)
        assert word.end == pytest.approx(end, abs=0.07)
        assert 0.3 < word.probability <= 1


async def test_words_of_several_windows_are_said_behind_the_pauses(served: SpeechServable) -> None:
    segments = await transcript(served, as_flac(times=3, pause_seconds=20), SpeechRequest(has_words=True))
    found = [word for segment in segments for word in segment.words]
    assert words("".join(each.text for each in found)) == SAID * 3
    assert all(one.end <= other.start + 0.01 for one, other in itertools.pairwise(found))
    for place in range(3):
        first, last = found[4 * place], found[4 * place + 3]
        # The file says it in 2.6 s, then there are 20 s of silence.
        assert 22.6 * place - 0.5 < first.start < last.start < 22.6 * place + 2.6
        assert last.end - last.start <= 1.41


async def test_tensors(served: SpeechServable) -> None:
    content = GOFORWARD.read_bytes()
    audio = np.array([content], np.object_)
    assert words(await infer(served, audio=audio)) == SAID
    assert words(await infer(served, samples=decode_audio(content, 60))) == SAID
    prompt = np.array([b"Robot, <|endoftext|> obey:"], np.object_)
    assert words(await infer(served, audio=audio, prompt=prompt, language=np.array([b"en"], np.object_))) == SAID
    wrong: dict[str, dict[str, np.ndarray]] = {
        "give one of": {},
        "must be one of transcribe, translate": {"audio": audio, "task": np.array([b"sing"], np.object_)},
        "no finite": {"samples": np.full(9, np.nan, np.float32)},
        "no audio file": {"audio": np.array([b"text"], np.object_)},
        "language is 'xx'; model 'whisper' knows en": {"audio": audio, "language": np.array([b"xx"], np.object_)},
    }
    for message, inputs in wrong.items():
        with pytest.raises(InvalidArgumentError, match=message):
            await infer(served, **inputs)


async def test_what_it_cannot_do_is_refused(served: SpeechServable) -> None:
    with pytest.raises(UnsupportedError, match="knows English only"):
        await transcript(served, GOFORWARD.read_bytes(), SpeechRequest(translates=True))
    with pytest.raises(PayloadTooLargeError, match="120 are the limit"):
        await transcript(served, as_flac(times=2, pause_seconds=60))


async def test_a_request_that_is_cancelled_frees_everything(served: SpeechServable) -> None:
    tasks = [asyncio.ensure_future(transcript(served, as_flac(times=2, pause_seconds=13))) for _ in range(3)]
    await asyncio.sleep(0.3)
    for task in tasks:
        task.cancel()
    assert {type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)} == {asyncio.CancelledError}
    assert words("".join(each.text for each in await transcript(served, as_flac()))) == SAID
    await served.drain()


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ("max_batch_size: 4", UnsupportedError, "'max_batch_size'; a request to backend 'speech'"),
        (CONFIG.replace("max_audio", "min_audio"), InvalidArgumentError, "'min_audio_seconds'; backend 'speech' knows"),
        (CONFIG.replace("120", "-1"), InvalidArgumentError, "whole number of 1 or more"),
        (
            CONFIG.replace("max_audio_seconds", "max_sequences").replace("120", "1025"),
            InvalidArgumentError,
            "is 1025; the most is 1024: let more files wait by --max-queue-size",
        ),
    ],
)
async def test_wrong_configs_are_refused(folder: Path, config: str, error: type[TriuneError], message: str) -> None:
    with pytest.raises(error, match=message):
        backend().configure(source(folder, config), 1)


async def test_more_files_than_memory_holds_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "usable_memory", lambda: Memory(total=1 << 30, available=1 << 20))
    config = 'parameters { key: "max_sequences" value { string_value: "3" } }'
    message = "'max_sequences' is 3: its cache takes [0-9]+ bytes, and 1048576 bytes are available; lower it"
    with pytest.raises(NoMemoryError, match=message):
        backend().build(source(folder, config), 1, None, Attempt())


async def test_broken_weights_are_an_invalid_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = SpeechEncoder.memory_unchecked

    def broken(*given: object) -> dict[str, np.ndarray]:
        return {name: np.full_like(each, np.nan) for name, each in computed(*given).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(SpeechEncoder, "memory_unchecked", broken)
    with pytest.raises(InvalidArgumentError, match="outputs are NaN or infinite; its weights are broken"):
        backend().build(source(folder), 1, None, Attempt())


async def test_an_unloaded_model_refuses(folder: Path) -> None:
    made = backend()
    # In one precision: comparing two takes most of a load.
    config = 'parameters { key: "precision" value { string_value: "fp32" } }'
    servable = made.assemble(made.build(source(folder, config), 1, None, Attempt()), None)  # type: ignore[arg-type]
    assert isinstance(servable, SpeechServable)
    await servable.close()
    with pytest.raises(UnavailableError, match="is being unloaded"):
        await transcript(servable, GOFORWARD.read_bytes())
