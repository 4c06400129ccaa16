"""Quantization of activations: an 8-bit integer q represents scale * (q - zero_point)."""

from typing import Any

import numpy as np

from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array, DType


def quantize(input: Array, zero_point: Array | None, scale: Array, axis: Any, output_dtype: str) -> Array:  # noqa: A002 (MIL's name)
    """Compute round(input / scale) + zero_point, clipped to the range of the type. Numbers halfway between two integers
    are rounded to the even one.
    """
    target = DType(output_dtype).numpy
    limits = np.iinfo(target)
    levels = np.rint(input / _along(scale, input, axis))
    if zero_point is not None:
        levels = levels + _along(zero_point, input, axis).astype(np.float32)
    return np.clip(levels, limits.min, limits.max).astype(target)


def dequantize(input: Array, zero_point: Array | None, scale: Array, axis: Any) -> Array:  # noqa: A002 (MIL's name)
    """Compute scale * (input - zero_point)."""
    levels = input.astype(np.float32)
    if zero_point is not None:
        levels = levels - _along(zero_point, input, axis).astype(np.float32)
    return levels * _along(scale, input, axis)


def _along(values: Array, x: Array, axis: Any) -> Array:
    """Make a scalar, or a vector along `axis`, broadcast to x."""
    return along(values, x.ndim, 0 if axis is None else int(axis))


def along(values: Array, ndim: int, axis: int) -> Array:
    """Reshape a vector to `ndim` dimensions, so that it broadcasts along `axis`; return a scalar as it is."""
    if values.ndim == 0:
        return values
    shape = [1] * ndim
    shape[axis] = -1
    return values.reshape(shape)


FAMILY: Family = {"dequantize": dequantize, "quantize": quantize}
