"""Conversion to Pillow's images, which coremltools uses for inputs and outputs."""

from typing import Any

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreml.mil import Array


def to_pillow(pixels: Array) -> Any:
    """Make a Pillow image of (height, width) of uint8 or floats, or of (height, width, 3) of uint8.

    Pillow has no fp16, so that a gray image of floats is fp32.

    Raises:
        UnsupportedError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise UnsupportedError("images of Core ML are Pillow's; pip install 'triune[coreml]'") from error
    return Image.fromarray(pixels.astype(np.float32) if pixels.dtype == np.float16 else np.ascontiguousarray(pixels))
