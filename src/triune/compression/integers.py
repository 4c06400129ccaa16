"""Quantizes weights to integers: w is approximately scale * (q - zero_point)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from triune.graph.packed import Packed

_TYPES = {
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
}
"""The element type of integers, by their bits and whether they are symmetric."""


def quantized(
    weight: NDArray[Any],
    bits: int,
    *,
    axis: int | None,
    block_axis: int | None = None,
    block: int = 0,
    is_symmetric: bool = True,
    scale_type: type[np.floating[Any]] | None = None,
) -> Packed:
    """Quantize weights to the nearest level. The error is at most scale / 2.

    Symmetric, with b bits: scale = max |w| / (2^(b-1) - 1), q = round(w / scale). Asymmetric, with low = min(w, 0) and
    high = max(w, 0): scale = (high - low) / (2^b - 1), zero_point = round(-low / scale), q = round(w / scale) +
    zero_point, so that 0 is exact. (ONNX's QuantizeLinear; Jacob et al., 2018, arXiv:1712.05877.)

    Args:
        weight: an array of fp32 or fp16, without NaN and infinities; the scales have its type.
        bits: 4 or 8.
        axis: the axis of output channels, which have a scale each; None for one scale, or with blocks.
        block_axis: the axis of input channels; each `block` neighbours on it share a scale. None for no blocks.
        block: the size of a block; it divides the axis.
        is_symmetric: whether there are no zero points.
        scale_type: the type of the scales; None means the type of the weights.
    """
    shape = list(weight.shape)
    kept_as = np.dtype(weight.dtype if scale_type is None else scale_type)
    # The axis that is cut into blocks becomes two axes.
    cut = shape if block_axis is None else [*shape[:block_axis], -1, block, *shape[block_axis + 1 :]]
    values = weight.astype(np.float32, copy=False).reshape(cut)
    if block_axis is None:
        reduced = tuple(each for each in range(values.ndim) if each != axis)
        form = [size if each == axis else 1 for each, size in enumerate(shape)]
    else:
        # Each block along `block_axis` has a scale of its own for every index on the other axes, as DequantizeLinear
        # requires.
        reduced = (block_axis + 1,)
        form = [size // block if each == block_axis else size for each, size in enumerate(shape)]
    if is_symmetric:
        most = (1 << (bits - 1)) - 1
        largest = np.maximum(np.max(values, reduced, keepdims=True), -np.min(values, reduced, keepdims=True))
        scale = _usable(largest / np.float32(most), kept_as)
        levels = _levels(values, scale, None, -most, most).astype(np.int8)
        zero = None
    else:
        most = (1 << bits) - 1
        low = np.minimum(np.min(values, reduced, keepdims=True), 0)
        high = np.maximum(np.max(values, reduced, keepdims=True), 0)
        scale = _usable(high / np.float32(most) - low / np.float32(most), kept_as)
        zeros = np.clip(np.rint(-low / scale), 0, most)
        levels = _levels(values, scale, zeros, 0, most).astype(np.uint8)
        zero = zeros.astype(np.uint8).reshape(form) if zeros.any() else None
    scales = scale.astype(kept_as).reshape(form)
    return Packed(_TYPES[bits, is_symmetric], levels.reshape(shape), scales, zero)


def _levels(
    values: NDArray[np.float32], scale: NDArray[np.float32], zeros: NDArray[np.float32] | None, low: int, high: int
) -> NDArray[np.float32]:
    """The levels of values, as floats. They are computed in a single array, since weights may be large."""
    levels = values / scale
    np.rint(levels, out=levels)
    if zeros is not None:
        levels += zeros
    return np.clip(levels, low, high, out=levels)


def _usable(scale: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """Scales rounded to `dtype`. Those below its smallest normal number become that number, since units may take
    smaller ones for 0; the scale of weights that are all 0 becomes 1.
    """
    held = np.maximum(scale.astype(dtype), np.finfo(dtype).smallest_normal).astype(np.float32)
    return np.where(scale > 0, held, np.float32(1))
