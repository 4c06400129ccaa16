"""Images as inputs and outputs of programs: their bytes, in the layout that Apple documents for `image_to_tensor`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError


class PixelFormat(StrEnum):
    """The pixel formats that Apple's library writes; each value is Apple's name."""

    RGB24 = "k24RGB"
    ARGB32 = "k32ARGB"
    BGRA32 = "k32BGRA"
    YCBCR420 = "k420YpCbCr8Planar"


CHANNELS: Mapping[PixelFormat, str] = MappingProxyType(
    {PixelFormat.RGB24: "RGB", PixelFormat.ARGB32: "ARGB", PixelFormat.BGRA32: "BGRA"}
)
"""The channels of a pixel in their order in memory, one byte each, for formats with interleaved channels."""

_TYPE = re.compile(r"!coreai\.image<<(.*?)> x (-?\d+) : i64 x (-?\d+) : i64.*>")


@dataclass(frozen=True, slots=True)
class Image:
    """The type of an image. Height and width are in pixels."""

    format: PixelFormat
    height: int
    width: int

    @classmethod
    def of(cls, word: str, height: int, width: int) -> "Image":
        """The type of an image of the pixel format `word`, Apple's name. Raises UnsupportedError for an unknown format.

        That error is also raised for a height or width below 1.
        """
        if word not in list(PixelFormat):
            raise UnsupportedError(f"an image of format {word}; those of {', '.join(PixelFormat)} are known")
        if height < 1 or width < 1:
            raise UnsupportedError(f"an image of height {height} and width {width}; both must be 1 or more")
        return cls(PixelFormat(word), height, width)

    def __str__(self) -> str:
        """The type for messages, such as "image (k24RGB) of 6x4"; the width comes first."""
        return f"image ({self.format.value}) of {self.width}x{self.height}"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the uint8 bytes: (height, width, channels), or (bytes,) for three planes one after the other."""
        if self.format is PixelFormat.YCBCR420:
            return (self.height * self.width + 2 * (self.height // 2) * (self.width // 2),)
        return (self.height, self.width, len(CHANNELS[self.format]))

    def pixels(self, what: str, value: Any) -> Any:
        """Convert a Pillow image to its bytes, (height, width, channels). Any other value is returned unchanged.

        If the format has alpha and the image has none, it becomes opaque.

        Raises:
            InvalidArgumentError: the image has another size or mode than this type.
        """
        # Recognize Pillow images without importing Pillow.
        if not (hasattr(value, "convert") and hasattr(value, "mode")):
            return value
        if self.format not in CHANNELS:
            raise InvalidArgumentError(
                f"{what} is a picture; it must be the planes Y, Cb and Cr of an {self}, uint8 of {list(self.shape)}"
            )
        channels = CHANNELS[self.format]
        modes = ("RGBA", "RGB") if "A" in channels else ("RGB",)
        if value.mode not in modes:
            raise InvalidArgumentError(
                f"{what} is a picture of mode '{value.mode}'; an {self} takes {' or '.join(modes)}: "
                f"picture.convert('{modes[0]}')"
            )
        if value.size != (self.width, self.height):
            raise InvalidArgumentError(
                f"{what} is a picture of {value.size[0]}x{value.size[1]}; it must be an {self}: "
                f"picture.resize(({self.width}, {self.height}))"
            )
        array: Array = np.asarray(value.convert(modes[0]))
        return array[..., [modes[0].index(channel) for channel in channels]]

    def picture(self, pixels: Array) -> Any:
        """Make a Pillow image, RGB or RGBA, of bytes in the shape of this type.

        Raises:
            UnsupportedError: the format is planar, or Pillow is not installed.
        """
        if self.format not in CHANNELS:
            raise UnsupportedError(
                f"Pillow has no form for an {self}; use the executor 'onnxruntime', which returns its bytes"
            )
        try:
            from PIL import Image as Pillow
        except ModuleNotFoundError as error:
            raise UnsupportedError("Core AI takes images as Pillow's; pip install pillow") from error
        channels = CHANNELS[self.format]
        order = [channels.index(channel) for channel in ("RGBA" if "A" in channels else "RGB")]
        return Pillow.fromarray(np.ascontiguousarray(pixels[..., order]))


def image_of(word: str) -> Image | None:
    """Parse the type of an image in MLIR, such as "!coreai.image<<k24RGB> x 4 : i64 x 6 : i64>"; None for other types.

    Raises:
        UnsupportedError: the layout of the pixel format is not documented, or the size is missing.
    """
    if not word.startswith("!coreai.image<"):
        return None
    found = _TYPE.fullmatch(word)
    if found is None:
        raise UnsupportedError(f"an image of type {word}, whose size is not told; save the program anew")
    return Image.of(found[1], int(found[2]), int(found[3]))
