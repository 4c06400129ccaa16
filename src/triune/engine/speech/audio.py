"""Audio files as samples: libsndfile decodes them, soxr changes their rate.

A file of a kilobyte may hold hours of silence, so its length is checked before anything of it is decoded.
"""

import importlib
import io
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.core.errors import InvalidArgumentError, PayloadTooLargeError

RATE: Final = 16_000
"""Samples in a second, as Whisper reads them."""

BYTES_A_SECOND: Final = 4 * RATE
"""The memory of a second of decoded audio."""

Content: TypeAlias = bytes | bytearray | memoryview
"""The bytes of an audio file."""

_FORMATS: Final = frozenset({"WAV", "WAVEX", "FLAC", "MP3", "MPEG", "OGG", "AIFF"})
_MAX_CHANNELS: Final = 8
_MAX_RATE: Final = 384_000
_MIN_RATE: Final = 1_000


def audio_seconds(content: Content, max_seconds: float) -> float:
    """How long an audio file is by its headers. It is never decoded beyond that.

    Raises:
        InvalidArgumentError: it is no audio file of a known form, or holds nothing.
        PayloadTooLargeError: it is longer than `max_seconds`.
    """
    with _open(content, max_seconds) as file:
        return file.frames / file.samplerate


def decode_audio(content: Content, max_seconds: float) -> NDArray[np.float32]:
    """Decode an audio file: FP32 [samples] at RATE, one channel (the mean of all), from -1 to 1.

    Args:
        content: the file: WAV, FLAC, MP3, Ogg or AIFF.
        max_seconds: the longest that is taken.

    Raises:
        InvalidArgumentError, PayloadTooLargeError: as `audio_seconds`; or the file is damaged.
    """
    soxr: Any = importlib.import_module("soxr")
    parts: list[NDArray[np.float32]] = []
    with _open(content, max_seconds) as file:
        rate: int = file.samplerate
        resampler = None if rate == RATE else soxr.ResampleStream(rate, RATE, 1, dtype="float32")
        left: int = file.frames
        while left > 0:
            block = _read(file, min(left, rate))
            left = left - len(block) if len(block) else 0
            mono = block.mean(axis=1, dtype=np.float32)
            parts.append(mono if resampler is None else resampler.resample_chunk(mono, last=not left))
    return _checked(np.concatenate(parts))


def checked_samples(samples: NDArray[np.float32], max_seconds: float) -> NDArray[np.float32]:
    """Samples that a client gave, FP32 [samples] at RATE, as `decode_audio` gives them. Raises as it does."""
    seconds = len(samples) / RATE
    if seconds > max_seconds:
        raise PayloadTooLargeError(
            f"the audio is {seconds:.0f} seconds long; {max_seconds:.0f} are the limit: send it in parts"
        )
    return _checked(samples)


def _checked(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    if not len(samples):
        raise InvalidArgumentError("the audio holds no samples")
    if not np.isfinite(samples).all():
        raise InvalidArgumentError("the audio has samples that are no finite numbers: encode it again")
    return np.clip(samples, -1, 1)


class _File(io.RawIOBase):
    """Bytes as a file, which copies none of them but those that are read."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        self._at = min(max(0, base + offset), len(self._view))
        return self._at

    def readinto(self, buffer: Any) -> int:
        piece = self._view[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _open(content: Content, max_seconds: float) -> Any:
    soundfile: Any = importlib.import_module("soundfile")
    try:
        file = soundfile.SoundFile(_File(memoryview(content)))
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise InvalidArgumentError(
            f"the file of {len(content)} bytes is no audio file that can be read ({_reason(error)}): send WAV, FLAC, "
            "MP3 or Ogg"
        ) from error
    try:
        _check(file, max_seconds)
    except BaseException:
        file.close()
        raise
    return file


def _check(file: Any, max_seconds: float) -> None:
    if file.format not in _FORMATS:
        raise InvalidArgumentError(f"the audio file is {file.format}: send WAV, FLAC, MP3 or Ogg")
    if not (1 <= file.channels <= _MAX_CHANNELS and _MIN_RATE <= file.samplerate <= _MAX_RATE):
        raise InvalidArgumentError(
            f"the audio has {file.channels} channels of {file.samplerate} samples a second; at most {_MAX_CHANNELS} "
            f"channels of {_MIN_RATE} to {_MAX_RATE} are read: convert it"
        )
    if file.frames < 1:
        raise InvalidArgumentError("the audio holds no samples")
    seconds = file.frames / file.samplerate
    if seconds > max_seconds:
        raise PayloadTooLargeError(
            f"the audio is {seconds:.0f} seconds long; {max_seconds:.0f} are the limit: send it in parts"
        )


def _read(file: Any, count: int) -> NDArray[np.float32]:
    try:
        return file.read(count, dtype="float32", always_2d=True)
    except RuntimeError as error:
        raise InvalidArgumentError(f"the audio file is damaged: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error).rpartition(": ")[2].strip().rstrip(".") or type(error).__name__
