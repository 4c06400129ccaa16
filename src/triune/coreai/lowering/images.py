"""Conversion of a function's image inputs to floats, and of floats to its image outputs."""

from typing import Any

import numpy as np

from triune.coreai.images import CHANNELS, Image
from triune.coreai.library import Value, dialect, ops
from triune.coreai.lowering.image_options import RGB, ImageOptions
from triune.coreai.lowering.values import cast, concat, constant, int32s, like, reshape, shape_of, transpose


def image_type(image: Image) -> Any:
    """Core AI's type for an image."""
    code = dialect.FourCCAttr.get_enum(enum_value=getattr(dialect.FourCC, image.format.name))
    return dialect.ImageType.get(fourcc_attr=code, height=image.height, width=image.width)


def floats_of(pixels: Value, options: ImageOptions, dtype: Any) -> Value:
    """Convert bytes (height, width, channels) to floats (1, 3, height, width), in the order red, green, blue."""
    planes = transpose(pixels, [2, 0, 1])
    channels = CHANNELS[options.format]
    if channels != RGB:
        planes = concat([_plane(planes, channels.index(channel)) for channel in RGB], 0)
    floats = cast(planes, dtype)
    if options.changes:
        scaled = ops.broadcasting_mul(floats, like(floats, options.scale))
        floats = ops.broadcasting_add(scaled, like(floats, np.reshape(options.bias, [3, 1, 1])))
    return ops.expand_dims(floats, int32s([0]))


def pixels_of(floats: Value, options: ImageOptions, height: int, width: int) -> Value:
    """Convert floats (1, 3, height, width) to bytes (height, width, channels): rounded, and clipped to 0 to 255.

    Alpha is 255.
    """
    shape = [len(RGB), height, width]
    limited = ops.broadcasting_minimum(ops.broadcasting_maximum(floats, like(floats, 0)), like(floats, 255))
    planes = cast(reshape(ops.round_(limited), shape), np.uint8)
    channels = CHANNELS[options.format]
    if channels != RGB:
        opaque = constant(np.full([1, *shape[1:]], 255, np.uint8))
        colors = {channel: _plane(planes, place) for place, channel in enumerate(RGB)} | {"A": opaque}
        planes = concat([colors[channel] for channel in channels], 0)
    return transpose(planes, [1, 2, 0])


def _plane(planes: Value, place: int) -> Value:
    _, height, width = (size or 0 for size in shape_of(planes))
    return ops.slice_(planes, int32s([place, 0, 0]), int32s([place + 1, height, width]), int32s([1, 1, 1]))
