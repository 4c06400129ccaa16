"""The log-mel spectrogram that Whisper reads, as its authors compute it (openai/whisper, `audio.py`)."""

import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triune.engine.speech.audio import RATE

WINDOW_SECONDS: Final = 30
"""The duration of the sound that the encoder reads at once."""

WINDOW_SAMPLES: Final = WINDOW_SECONDS * RATE
FRAME_SAMPLES: Final = 160
"""The number of samples from one frame to the next."""

WINDOW_FRAMES: Final = WINDOW_SAMPLES // FRAME_SAMPLES

_FFT: Final = 400
_FLOOR: Final = 1e-10
_RANGE: Final = 8.0


def log_mel(samples: NDArray[np.float32], num_bands: int) -> NDArray[np.float32]:
    """The spectrogram of one window, FP32 [bands, WINDOW_FRAMES].

    Args:
        samples: FP32 [samples] at RATE, at most WINDOW_SAMPLES; the window is padded with silence.
        num_bands: 80, or 128 for large-v3.
    """
    whole = np.zeros(WINDOW_SAMPLES, np.float32)
    whole[: len(samples)] = samples[:WINDOW_SAMPLES]
    padded = np.pad(whole, _FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::FRAME_SAMPLES][:WINDOW_FRAMES]
    spectrum = np.fft.rfft(frames * _hann())
    power = spectrum.real**2 + spectrum.imag**2
    mel = np.log10(np.maximum(_filters(num_bands) @ power.T, _FLOOR))
    return ((np.maximum(mel, mel.max() - _RANGE) + 4.0) / 4.0).astype(np.float32)


@functools.cache
def _hann() -> NDArray[np.float32]:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FFT) / _FFT)).astype(np.float32)


@functools.cache
def _filters(num_bands: int) -> NDArray[np.float32]:
    """The filters of the mel bands, FP32 [bands, frequencies]: triangles between frequencies that are evenly spaced on
    Slaney's scale, each with the same area.
    """
    edges = _hertz(np.linspace(0.0, _mel(RATE / 2), num_bands + 2))
    bins = np.linspace(0, RATE / 2, _FFT // 2 + 1)
    slopes = edges[:, np.newaxis] - bins
    widths = np.diff(edges)[:, np.newaxis]
    triangles = np.maximum(0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    return (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, np.newaxis]).astype(np.float32)


_LINEAR_HERTZ: Final = 1000.0
"""Slaney's scale is linear up to this frequency, and logarithmic above it."""

_LINEAR_MELS: Final = 15.0
_STEP: Final = np.log(6.4) / 27.0


def _mel(hertz: float) -> float:
    return _LINEAR_MELS + float(np.log(hertz / _LINEAR_HERTZ) / _STEP)


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mels * (_LINEAR_HERTZ / _LINEAR_MELS)
    return np.where(mels < _LINEAR_MELS, linear, _LINEAR_HERTZ * np.exp(_STEP * (mels - _LINEAR_MELS)))
