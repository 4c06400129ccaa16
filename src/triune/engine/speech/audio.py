"""Audio files as samples: libsndfile decodes them, soxr changes their rate.

A file of a kilobyte may contain hours of silence, so its length is checked before any samples are stored.
"""

import importlib
import io
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.core.errors import InvalidArgumentError, PayloadTooLargeError

RATE: Final = 16_000
"""The sampling rate of the sound that Whisper reads, in samples a second."""

DECODING_BYTES: Final = 32 << 20
"""The most memory, in bytes, that decoding a file takes in addition to the file: a few parts of `_PART_SAMPLES` samples
in FP32.
"""

Content: TypeAlias = bytes | bytearray | memoryview
"""The bytes of an audio file."""

_FORMATS: Final = frozenset({"WAV", "WAVEX", "FLAC", "MP3", "MPEG", "OGG", "AIFF"})
_MAX_CHANNELS: Final = 8
_MAX_RATE: Final = 384_000
_MIN_RATE: Final = 1_000

_DENSE_RATE: Final = 192_000
"""The largest sampling rate, summed over all channels, of a file that is as long as the longest accepted one: two
channels of 96,000 samples a second. A shorter file may have a higher rate.
"""

_PART_SAMPLES: Final = 1 << 20
"""About how many samples, of all channels together, are decoded at once."""

_UNKNOWN_FRAMES: Final = 1 << 62
"""If a file does not state its length, such as FLAC written into a pipe, libsndfile reports more frames than this."""


def audio_seconds(content: Content, max_seconds: float) -> float:
    """The length of an audio file in seconds. It is read from the file's headers, and samples beyond it are never
    decoded. If the headers have no length, the samples are counted.

    Raises:
        InvalidArgumentError: the content is not an audio file of a known format, or is empty.
        PayloadTooLargeError: the audio is longer than `max_seconds`.
    """
    file, num_frames = _open(content, max_seconds)
    with file:
        return num_frames / file.samplerate


class AudioDecoder:
    """Decodes an audio file part by part, so that decoding can be cancelled in between. Used by one thread at a time.

    The file (WAV, FLAC, MP3, Ogg or AIFF) is closed when the decoder is freed.
    """

    def __init__(self, content: Content, max_seconds: float) -> None:
        """Args:
        content: the bytes of the file.
        max_seconds: the longest audio that is accepted, in seconds.

        Raises:
            InvalidArgumentError, PayloadTooLargeError: see `audio_seconds`.
        """
        soxr: Any = importlib.import_module("soxr")
        self._file, self._left = _open(content, max_seconds)
        self._rate: int = self._file.samplerate
        self._resampler = None if self._rate == RATE else soxr.ResampleStream(self._rate, RATE, 1, dtype="float32")
        self._parts: list[NDArray[np.float32]] = []
        self._num_decoded = 0

    def decode_part(self) -> bool:
        """Decode a million further samples, which takes a fraction of a second. Returns whether samples are left.

        Raises:
            InvalidArgumentError: the file is damaged, or holds no samples.
        """
        num_blocks = max(1, _PART_SAMPLES // (self._rate * self._file.channels))
        for _ in range(num_blocks):
            block = _read(self._file, min(self._left, self._rate))
            self._left = self._left - len(block) if len(block) else 0
            mono = block.mean(axis=1, dtype=np.float32)
            is_last = not self._left
            self._parts.append(mono if self._resampler is None else self._resampler.resample_chunk(mono, last=is_last))
            self._num_decoded += len(self._parts[-1])
            if is_last:
                break
        if not self._left and not self._num_decoded:
            raise _holds_nothing()
        return self._left > 0

    def take(self) -> NDArray[np.float32]:
        """The samples that were decoded since the last call: FP32 [samples] at RATE, one channel (the mean of all),
        from -1 to 1.

        Raises:
            InvalidArgumentError: a sample is NaN or infinite.
        """
        parts, self._parts = self._parts, []
        return _checked(np.concatenate([np.empty(0, np.float32), *parts]))


def checked_samples(samples: NDArray[np.float32], max_seconds: float) -> NDArray[np.float32]:
    """Check samples that a client sent, FP32 [samples] at RATE, and return them as `AudioDecoder` does. Raises the
    errors of `AudioDecoder`.
    """
    seconds = len(samples) / RATE
    if seconds > max_seconds:
        raise PayloadTooLargeError(
            f"the audio is {seconds:.0f} seconds long; {max_seconds:.0f} are the limit: send it in parts"
        )
    if not len(samples):
        raise _holds_nothing()
    return _checked(samples)


def _holds_nothing() -> InvalidArgumentError:
    return InvalidArgumentError("the audio holds no samples")


def _checked(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(samples).all():
        raise InvalidArgumentError("the audio has samples that are no finite numbers: encode it again")
    return np.clip(samples, -1, 1)


class _File(io.RawIOBase):
    """A file object over bytes. It copies only the bytes that are read."""

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


def _open(content: Content, max_seconds: float) -> tuple[Any, int]:
    """The file, and its number of frames (a frame has a sample of each channel)."""
    file = _opened(content)
    try:
        _check_form(file)
        num_frames = file.frames
        if num_frames > _UNKNOWN_FRAMES:
            num_frames = _count(file, max_seconds)
            file.close()
            file = _opened(content)
            _read_on(file)
        _check_length(file, num_frames, max_seconds)
    except BaseException:
        file.close()
        raise
    return file, num_frames


def _read_on(file: Any) -> None:
    """Make a file of unknown length readable: let it say that it cannot seek. Otherwise soundfile would seek to the
    current position after each block, which fails.
    """
    file.seekable = lambda: False


def _count(file: Any, max_seconds: float) -> int:
    """Count the frames of a file whose header has no number of frames, and stop after the first block beyond
    `max_seconds`.
    """
    _read_on(file)
    num_frames, most = 0, int(max_seconds * min(file.samplerate, _DENSE_RATE / file.channels))
    block_frames = max(1, _PART_SAMPLES // file.channels)
    while num_frames <= most and (num_read := len(_read(file, block_frames))):
        num_frames += num_read
    return num_frames


def _opened(content: Content) -> Any:
    soundfile: Any = importlib.import_module("soundfile")
    try:
        return soundfile.SoundFile(_File(memoryview(content)))
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise InvalidArgumentError(
            f"the file of {len(content)} bytes is no audio file that can be read ({_reason(error)}): send WAV, FLAC, "
            "MP3 or Ogg"
        ) from error


def _check_form(file: Any) -> None:
    if file.format not in _FORMATS:
        raise InvalidArgumentError(f"the audio file is {file.format}: send WAV, FLAC, MP3 or Ogg")
    if not (1 <= file.channels <= _MAX_CHANNELS and _MIN_RATE <= file.samplerate <= _MAX_RATE):
        raise InvalidArgumentError(
            f"the audio has {file.channels} channels of {file.samplerate} samples a second; at most {_MAX_CHANNELS} "
            f"channels of {_MIN_RATE} to {_MAX_RATE} are read: convert it"
        )


def _check_length(file: Any, num_frames: int, max_seconds: float) -> None:
    if num_frames < 1:
        raise _holds_nothing()
    seconds = num_frames / file.samplerate
    if seconds > max_seconds:
        raise PayloadTooLargeError(
            f"the audio is {seconds:.0f} seconds long; {max_seconds:.0f} are the limit: send it in parts"
        )
    num_samples, most = num_frames * file.channels, int(max_seconds * _DENSE_RATE)
    if num_samples > most:
        raise PayloadTooLargeError(
            f"the audio has {num_samples} samples in {file.channels} channels; {most} are the limit: convert it to one "
            f"channel of {RATE} samples a second, or send it in parts"
        )


def _read(file: Any, count: int) -> NDArray[np.float32]:
    try:
        return file.read(count, dtype="float32", always_2d=True)
    except RuntimeError as error:
        raise InvalidArgumentError(f"the audio file is damaged: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    reason = str(error).rpartition(": ")[2].strip().rstrip(".") or type(error).__name__
    # For a damaged MP3, libsndfile says that the file is not a regular file, which would mislead the client.
    return "it is damaged" if "regular file" in reason else reason
