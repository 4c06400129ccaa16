"""Make a tensor from rows of weights `code * scale + offset`. Rows are converted in parts, to save memory."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, Literal, TypeAlias

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.engine.weights.affine import Affine
from triune.engine.weights.regroup import nearest
from triune.engine.weights.tensors import Bits, DenseTensor, PackedTensor, Regrouped, Tensor, pack_nibbles

Inexact: TypeAlias = Literal["dequantize", "offsets", "regroup", "widen"]
"""How to convert a packed format that codes, scales and integer zero points cannot represent exactly (Q4_1, Q4_K, Q5_K,
MLX's): "dequantize" gives the exact weights, dense; "offsets" keeps them exactly, for a runtime that adds an offset to
each block; "regroup" gives packed weights near the exact ones, with codes of as many bits (8 instead of 5); "widen"
gives such weights with codes of 8 bits, which have a sixteenth of the error. `PackedTensor.regrouped` has the resulting
error.
"""

PART_WEIGHTS: Final = 1 << 18
"""The approximate number of weights in a part."""


def rows_in_part(columns: int) -> int:
    """The number of rows of `columns` weights that make a part."""
    return max(1, PART_WEIGHTS // columns)


def make_tensor(parts: Iterable[Affine], shape: tuple[int, ...], form: str, inexact: Inexact, where: str) -> Tensor:
    """Make a tensor from rows that arrive in parts. Rows are along the last axis of `shape`.

    Matrices without offsets are kept exactly. Tensors that are not matrices become dense.

    Args:
        parts: the rows, in order; at least one part.
        shape: the tensor's shape.
        form: the name of the form in the file (`Tensor.form`).
        inexact: what becomes of matrices with offsets.
        where: names the tensor in errors.

    Raises:
        InvalidArgumentError: a scale or an offset is not finite.
    """
    checked = (_finite(part, where) for part in parts)
    first = next(checked)
    every = chain((first,), checked)
    is_exact = first.offsets is None
    if len(shape) != 2 or (inexact == "dequantize" and not is_exact):
        return _dense(every, shape, form)
    rows, columns = shape
    is_kept = is_exact or inexact == "offsets"
    bits: Bits = 8 if inexact == "widen" and not is_exact else first.bits
    codes = np.empty((rows, columns * bits // 8), np.uint8)
    blocks = (rows, columns // first.block_size)
    if is_kept:
        scales = np.empty(blocks, first.scales.dtype)
        offsets = None if is_exact else np.empty(blocks, np.float32)
        _fill_exact(every, bits, codes, scales, offsets)
        _seal(codes, scales, offsets)
        return PackedTensor(codes, bits, scales, None, first.block_size, form, None, offsets)
    # For 4-bit codes, FP16 is precise enough for scales.
    scales = np.empty(blocks, np.float16 if bits == 4 else np.float32)
    zero_points = np.empty(blocks, np.uint8)
    regrouped = _fill_nearest(every, bits, codes, scales, zero_points, form)
    _seal(codes, scales, zero_points)
    return PackedTensor(codes, bits, scales, zero_points, first.block_size, form, regrouped)


def _finite(part: Affine, where: str) -> Affine:
    for what, numbers in (("a scale", part.scales), ("an offset", part.offsets)):
        if numbers is not None and not np.isfinite(numbers).all():
            raise InvalidArgumentError(f"{where}: {what} of its weights is not finite: the file is damaged")
    return part


def _dense(parts: Iterable[Affine], shape: tuple[int, ...], form: str) -> DenseTensor:
    values = np.empty((math.prod(shape[:-1]), shape[-1]), np.float32)
    for rows, part in _placed(parts):
        values[rows] = part.dequantize()
    _seal(values)
    return DenseTensor(values.reshape(shape), form)


def _fill_exact(parts: Iterable[Affine], bits: Bits, codes: Array, scales: Array, offsets: Array | None) -> None:
    for rows, part in _placed(parts):
        unsigned = part.codes.view(np.uint8)
        codes[rows] = unsigned if bits == 8 else pack_nibbles(unsigned & np.uint8(15))
        scales[rows] = part.scales
        if offsets is not None:
            offsets[rows] = part.offsets


def _fill_nearest(
    parts: Iterable[Affine], bits: Bits, codes: Array, scales: Array, zero_points: Array, form: str
) -> Regrouped | None:
    largest = square_error = square_sum = 0.0
    num_weights = 0
    for rows, part in _placed(parts):
        found = nearest(part, bits, scales.dtype)
        codes[rows] = found.codes if bits == 8 else pack_nibbles(found.codes)
        scales[rows], zero_points[rows] = found.scales, found.zero_points
        largest = max(largest, found.largest)
        square_error += found.square_error
        square_sum += found.square_sum
        num_weights += found.codes.size
    if not largest:
        return None
    relative = math.sqrt(square_error / square_sum) if square_sum else 0.0
    return Regrouped(form, largest, math.sqrt(square_error / num_weights), relative)


def _placed(parts: Iterable[Affine]) -> Iterator[tuple[slice, Affine]]:
    """Yield (slice, part) for each part: the slice has the place of the part's rows among all rows of the tensor."""
    place = 0
    for part in parts:
        yield slice(place, place + len(part.codes)), part
        place += len(part.codes)


def _seal(*arrays: Array | None) -> None:
    for array in arrays:
        if array is not None:
            array.flags.writeable = False
