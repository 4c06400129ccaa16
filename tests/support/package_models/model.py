"""A model file in a package, and its sample inputs."""

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
    """A model file in a package.

    Attributes:
        package: the package that contains the file.
        member: the path of the file in the package. External data are beside it, in a file with its name and ".data".
        inputs: makes sample inputs from files and pictures of packages.
        half: the allowed error in fp16, relative to the largest value; None if fp16 is not tested.
        full: the allowed error in fp32, relative to the largest value.
    """

    package: Package
    member: str
    inputs: Callable[[PackageCache], Inputs]
    half: float | None
    full: float = 1e-4

    def save(self, cache: PackageCache, folder: Path) -> Path:
        """Write the file to a folder, and return its path."""
        path = folder / "model.onnx"
        (content,) = cache.read(self.package, [self.member])
        path.write_bytes(content)
        if b"model.onnx.data" in content:
            (folder / "model.onnx.data").write_bytes(*cache.read(self.package, [f"{self.member}.data"]))
        return path


def wheel(name: str, version: str, sha256: str, licence: str, tags: str = "py3-none-any") -> Package:
    """A wheel whose file name follows the usual form."""
    return Package(name, version, f"{name.replace('-', '_')}-{version}-{tags}.whl", sha256, licence)


def cat(cache: PackageCache, width: int, height: int) -> Any:
    """The picture of a cat in scikit-image, as floats (1, 3, height, width) from 0 to 1."""
    picture = Image.open(io.BytesIO(read_picture("chelsea", cache))).convert("RGB").resize((width, height))
    return np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / np.float32(255)


def text(words: str, width: int, height: int) -> Any:
    """A picture of dark letters on a bright background, as floats (height, width, 3) from 0 to 1."""
    picture = Image.new("RGB", (width, height), (235, 238, 230))
    draw = ImageDraw.Draw(picture)
    draw.text((width // 12, height // 5), words, (30, 40, 60), ImageFont.load_default(height // 2))
    draw.line([(0, height // 3), (width, height // 2)], (120, 90, 60))
    return np.asarray(picture, np.float32) / np.float32(255)


def voice(num_samples: int) -> Any:
    """A sound like a vowel at 16 kHz, followed by silence: harmonics of 120 Hz that are strong near 700 and 1200 Hz."""
    time = np.arange(num_samples) / 16_000
    harmonics = 120 * np.arange(1, 30)
    strengths = np.exp(-(((harmonics - 700) / 250) ** 2)) + 0.6 * np.exp(-(((harmonics - 1200) / 250) ** 2))
    sound = (strengths * np.sin(2 * np.pi * time[:, None] * harmonics)).sum(axis=1)
    sound *= np.where(time < time[-1] * 0.6, 0.1, 0.0)
    return (sound + np.random.default_rng(0).standard_normal(num_samples) * 1e-3).astype(np.float32)
