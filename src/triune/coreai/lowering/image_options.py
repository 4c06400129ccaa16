"""Options that make inputs and outputs of a program images, and conversion between bytes and floats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.coreai.images import CHANNELS, Image, PixelFormat

RGB: Final = "RGB"
"""The order of the channels in a model's float tensors (1, 3, height, width)."""

_FORM = "--image takes x=rgb24 or x=rgb24,scale=0.5,bias=1|2|3"
_WORDS: Final = {pixels.name.lower(): pixels for pixels in CHANNELS}


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How the bytes of an image are converted to a model's floats: bytes * scale + bias.

    Attributes:
        format: a pixel format with interleaved channels.
        scale: the factor for all channels.
        bias: the addends for red, green and blue.
    """

    format: PixelFormat
    scale: float = 1.0
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def changes(self) -> bool:
        """Whether the floats differ from the bytes: the scale is not 1, or the bias not 0."""
        return self.scale != 1 or any(self.bias)

    def floats(self, pixels: Array) -> Array:
        """Convert bytes (height, width, channels) to the model's floats: fp32 (1, 3, height, width)."""
        order = [CHANNELS[self.format].index(channel) for channel in RGB]
        colors = pixels[..., order].astype(np.float32).transpose(2, 0, 1)[None]
        return colors * np.float32(self.scale) + np.array(self.bias, np.float32)[:, None, None]

    def nearest(self, name: str, floats: Array) -> Array:
        """Convert floats (1, 3, height, width) to the nearest bytes; alpha is 255.

        Raises:
            InvalidArgumentError: a float is out of the range that bytes from 0 to 255 have by this scale and bias.
        """
        bias = np.array(self.bias)[:, None, None]
        colors = np.rint((floats[0].astype(np.float64) - bias) / self.scale)
        if not np.all((colors >= 0) & (colors <= 255)):
            raise InvalidArgumentError(
                f"input '{name}' is to be an image, and the values given for it are not bytes * {self.scale:g} + "
                f"{list(self.bias)}: it is from {floats.min():g} to {floats.max():g}"
            )
        channels = CHANNELS[self.format]
        planes = {**dict(zip(RGB, colors, strict=True)), "A": np.full(colors.shape[1:], 255.0)}
        return np.stack([planes[channel] for channel in channels], axis=-1).astype(np.uint8)

    def image(self, shape: Sequence[int | None]) -> Image | None:
        """The type of an image for floats of `shape`; None if that is not (1, 3, height, width) with known sizes."""
        if len(shape) != 4 or tuple(shape[:2]) != (1, 3) or not shape[2] or not shape[3]:
            return None
        return Image(self.format, shape[2], shape[3])


def parse_images(texts: Mapping[str, str]) -> dict[str, ImageOptions]:
    """Parse the options of image inputs and outputs, by name, such as "rgb24" or "rgb24,scale=0.5,bias=1|2|3".

    Raises:
        InvalidArgumentError: an option has another form.
    """
    return {name: _parsed(name, text) for name, text in texts.items()}


def _parsed(name: str, text: str) -> ImageOptions:
    word, *rest = text.split(",")
    if word not in _WORDS:
        raise InvalidArgumentError(f"--image '{name}': there is no format '{word}'; there are {', '.join(_WORDS)}")
    found: dict[str, list[float]] = {}
    for each in rest:
        key, _, value = each.partition("=")
        if key not in ("scale", "bias") or key in found:
            raise InvalidArgumentError(f"--image '{name}': '{each}' is unknown or given twice; {_FORM}")
        found[key] = _numbers(name, each, value)
    (scale,) = found.get("scale", [1.0])
    red, green, blue = found.get("bias", [0.0] * 3)
    if scale == 0:
        raise InvalidArgumentError(f"--image '{name}': scale is 0, which leaves nothing of the image; leave it out")
    return ImageOptions(_WORDS[word], scale, (red, green, blue))


def _numbers(name: str, text: str, value: str) -> list[float]:
    try:
        numbers = [float(each) for each in value.split("|")]
    except ValueError:
        numbers = []
    count = 3 if text.startswith("bias") else 1
    if len(numbers) != count or not np.all(np.isfinite(numbers)):
        raise InvalidArgumentError(f"--image '{name}': '{text}' must have {count} number(s), separated by '|'; {_FORM}")
    return numbers
