import io
import struct

import numpy as np
import pytest
import soundfile

from support.speech import decode_audio
from triune.core.errors import InvalidArgumentError, PayloadTooLargeError
from triune.engine.speech.audio import RATE, AudioDecoder, audio_seconds


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, form: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def pitch(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples))


@pytest.mark.parametrize("form", ["WAV", "FLAC", "MP3", "OGG"])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (8_000, 1)])
def test_files_of_every_form_are_decoded(form: str, rate: int, channels: int) -> None:
    content = encoded(tone(1.5, rate, channels), rate, form)
    assert audio_seconds(content, 10) == pytest.approx(1.5, abs=0.2)
    samples = decode_audio(content, 10)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(1.5 * RATE, abs=0.2 * RATE)
    assert pitch(samples) == pytest.approx(440, abs=2)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.1)


def test_an_hour_of_silence_in_a_small_file_is_refused_undecoded() -> None:
    content = encoded(np.zeros(3600 * 8000, np.int16), 8000, "FLAC", "PCM_16")
    assert len(content) < 500_000
    with pytest.raises(PayloadTooLargeError, match="3600 seconds long; 60 are the limit"):
        decode_audio(content, 60)


def test_more_samples_than_fit_the_length_are_refused_undecoded() -> None:
    content = encoded(np.zeros((60 * 48_000, 8), np.int16), 48_000, "FLAC", "PCM_16")
    with pytest.raises(PayloadTooLargeError, match="23040000 samples in 8 channels; 11520000 are the limit"):
        audio_seconds(content, 60)
    assert audio_seconds(content, 120) == 60


def unknown_length(flac: bytes) -> bytes:
    """The file with 0 as its number of samples, which means that it is not known (RFC 9639, 8.2)."""
    numbers = int.from_bytes(flac[18:26], "big")
    return flac[:18] + (numbers >> 36 << 36).to_bytes(8, "big") + flac[26:]


@pytest.mark.parametrize(("rate", "channels", "seconds"), [(16_000, 1, 3), (44_100, 2, 1.5), (96_000, 8, 6)])
def test_a_file_that_does_not_tell_its_length_is_decoded_to_its_end(rate: int, channels: int, seconds: float) -> None:
    content = encoded(tone(seconds, rate, channels), rate, "FLAC")
    unknown = unknown_length(content)
    assert unknown != content
    assert audio_seconds(unknown, 60) == audio_seconds(content, 60) == seconds
    np.testing.assert_array_equal(decode_audio(unknown, 60), decode_audio(content, 60))
    with pytest.raises(InvalidArgumentError, match="damaged|no samples|no audio file"):
        decode_audio(unknown[:60], 60)


def test_a_file_that_does_not_tell_its_length_is_counted_up_to_the_limit() -> None:
    hour = unknown_length(encoded(np.zeros(3600 * 8000, np.int16), 8000, "FLAC", "PCM_16"))
    with pytest.raises(PayloadTooLargeError, match="131 seconds long; 60 are the limit"):
        audio_seconds(hour, 60)
    dense = unknown_length(encoded(np.zeros((60 * 48_000, 8), np.int16), 48_000, "FLAC", "PCM_16"))
    with pytest.raises(PayloadTooLargeError, match="samples in 8 channels; 11520000 are the limit"):
        audio_seconds(dense, 60)


def test_a_dense_file_is_decoded_in_parts() -> None:
    decoder = AudioDecoder(encoded(tone(6, 96_000, 8), 96_000, "FLAC"), 60)
    num_parts = 1
    while decoder.decode_part():
        num_parts += 1
    assert num_parts == 6
    assert pitch(decoder.take()) == pytest.approx(440, abs=2)


@pytest.mark.parametrize(
    "content", [b"", b"no audio", b"RIFF\x00\x00\x00\x00WAVE", b"fLaC" + bytes(64), b"\xff\xfb" * 9]
)
def test_what_is_no_audio_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        decode_audio(content, 60)


def test_a_damaged_mp3_is_called_damaged() -> None:
    with pytest.raises(InvalidArgumentError, match="no audio file that can be read .it is damaged."):
        decode_audio(b"\xff\xfb\x90\x00" + bytes(413), 60)


def test_wrong_samples_and_headers_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no finite"):
        decode_audio(encoded(np.full(100, np.nan, np.float32), 16_000, "WAV", "FLOAT"), 60)
    with pytest.raises(InvalidArgumentError, match="9 channels"):
        decode_audio(encoded(np.zeros((10, 9), np.float32), 16_000, "WAV"), 60)
    wav = bytearray(encoded(tone(0.1, 16_000), 16_000, "WAV"))
    wav[24:28] = struct.pack("<I", 1)
    with pytest.raises((InvalidArgumentError, PayloadTooLargeError)):
        decode_audio(bytes(wav), 60)


def test_a_file_that_ends_early_is_decoded_up_to_there_or_refused() -> None:
    for form in ("WAV", "FLAC", "MP3"):
        content = encoded(tone(2, 16_000), 16_000, form)
        try:
            samples = decode_audio(content[: len(content) // 2], 60)
        except InvalidArgumentError:
            continue
        assert len(samples) <= 2.2 * RATE
