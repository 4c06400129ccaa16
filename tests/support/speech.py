"""A recording of 2.6 seconds in which a speaker says "go forward ten meters", and a model folder with Whisper tiny.en
without a config.

`goforward.mp3` is `goforward.raw` of pocketsphinx' test data; its licence is in `goforward.txt`.
"""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import soundfile

from triune.engine.speech.audio import AudioDecoder
from triune.zoo.packages import PackageCache
from triune.zoo.repository import build_repository

GOFORWARD = Path(__file__).parent / "goforward.mp3"


def write_whisper(root: Path, packages: PackageCache) -> Path:
    """Write the model `whisper` with version 1 and no config. Returns its folder."""
    (built,) = build_repository(root / "zoo", models=["whisper-tiny.en"], cache=packages)
    assert not built.reason
    folder = root / "models" / "whisper"
    shutil.copytree(root / "zoo" / "whisper-tiny.en" / "1", folder / "1")
    return folder


def words(text: str) -> list[str]:
    """Split a text into words in lower case, with "10" replaced by "ten"."""
    return re.findall(r"[a-z]+", text.lower().replace("10", "ten"))


def as_silence(seconds: float) -> bytes:
    """Silence of this length as a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(int(seconds * 16_000), np.float32), 16_000, format="WAV")
    return file.getvalue()


def as_flac(*, times: int = 1, pause_seconds: float = 0.0) -> bytes:
    """The recording GOFORWARD as a FLAC file, repeated with pauses."""
    samples, rate = soundfile.read(GOFORWARD, dtype="float32")
    once = np.concatenate([samples, np.zeros(int(pause_seconds * rate), np.float32)])
    file = io.BytesIO()
    soundfile.write(file, np.tile(once, times), rate, format="FLAC")
    return file.getvalue()


def decode_audio(content: bytes, max_seconds: float) -> np.ndarray:
    decoder = AudioDecoder(content, max_seconds)
    parts: list[np.ndarray] = []
    while decoder.decode_part():
        parts.append(decoder.take())
    return np.concatenate([*parts, decoder.take()])
