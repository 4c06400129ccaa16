"""Pillow's images, which coremltools takes and gives."""

from typing import Any

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreml.mil import Array


def to_pillow(pixels: Array) -> Any:
    """An image of uint8 or floats of (height, width), or uint8 of (height, width, 3). Pillow has no fp16: gray is fp32.

    Raises:
        UnsupportedError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise UnsupportedError("images of Core ML are Pillow's; pip install 'triune[coreml]'") from error
    return Image.fromarray(pixels.astype(np.float32) if pixels.dtype == np.float16 else np.ascontiguousarray(pixels))
