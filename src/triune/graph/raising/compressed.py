"""Decompress weights: blockwise scales, look-up tables (palettes), and sparse values with a mask."""

from collections.abc import Sequence

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.raising.types import Array

# Limits how much a small file can grow in memory; Apple's own compression has vectors of at most 8.
_LARGEST_VECTOR = 256


def dequantized(data: Array, scale: Array, before: Array | None, after: Array | None = None) -> Array:
    """`scale * (data - before) + after` in fp32; each has one value for each block of shape data.shape / scale.shape.

    Raises:
        InvalidArgumentError: the shape of the data is not a multiple of the number of blocks.
    """
    result = data.astype(np.float32)
    if before is not None and (shift := _spread(before, data.shape)).any():
        result -= shift.astype(np.float32)
    result *= _spread(scale, data.shape).astype(np.float32)
    if after is not None and (shift := _spread(after, data.shape)).any():
        result += shift.astype(np.float32)
    return result


def _spread(value: Array, shape: Sequence[int]) -> Array:
    """Repeat each element of `value` along each axis until it has the shape `shape`."""
    if value.ndim != len(shape) or any(not have or want % have for have, want in zip(value.shape, shape, strict=True)):
        raise InvalidArgumentError(f"blocks of {list(value.shape)} do not divide {list(shape)}")
    for axis, size in enumerate(shape):
        # Dimensions of size 1 broadcast.
        if value.shape[axis] not in (1, size):
            value = np.repeat(value, size // value.shape[axis], axis)
    return value


def tables_of(shape: Sequence[int], lut: Sequence[int]) -> Array:
    """The number of the table that each index looks up; `lut` is [blocks along each axis..., values, vector].

    Args:
        shape: the shape of the indices.
        lut: the shape of the tables.

    Raises:
        InvalidArgumentError: the shape of the indices is not a multiple of the number of blocks.
        UnsupportedError: the vectors are too long.
    """
    if len(lut) != len(shape) + 2:
        raise InvalidArgumentError(f"'lut' is of shape {list(lut)} for indices of {list(shape)}")
    if lut[-1] > _LARGEST_VECTOR:
        raise UnsupportedError(f"'lut' has vectors of {lut[-1]}; at most {_LARGEST_VECTOR} are supported")
    if any(not have or want % have for have, want in zip(lut[:-2], shape, strict=True)):
        raise InvalidArgumentError(f"tables of {list(lut[:-2])} do not divide {list(shape)}")
    table = np.zeros(tuple(shape), np.int64)
    for axis, (have, want) in enumerate(zip(lut[:-2], shape, strict=True)):
        places = np.arange(want, dtype=np.int64) // (want // have)
        table = table * have + places.reshape([-1] + [1] * (len(shape) - 1 - axis))
    return table


def looked_up(indices: Array, lut: Array, vector_axis: int | None) -> Array:
    """The entry of the tables for each index; vectors lie along `vector_axis`. Raises as `tables_of` does."""
    table = tables_of(indices.shape, lut.shape)
    vectors = lut.reshape(-1, *lut.shape[-2:])[table, indices]
    if lut.shape[-1] == 1:
        return vectors[..., 0]
    if vector_axis is None:
        raise InvalidArgumentError(f"'vector_axis' is missing for vectors of {lut.shape[-1]}")
    axis = range(indices.ndim)[vector_axis]
    shape = list(indices.shape)
    shape[axis] *= lut.shape[-1]
    return np.moveaxis(vectors, -1, axis + 1).reshape(shape)


def filled(values: Array, mask: Array) -> Array:
    """Place `values`, in row-major order, where the mask is not 0; 0 elsewhere.

    Raises:
        InvalidArgumentError: the number of values is not the number of nonzero elements of the mask.
    """
    count = int(np.count_nonzero(mask))
    if values.shape != (count,):
        raise InvalidArgumentError(f"there are {values.size} values for {count} places in the mask")
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask != 0] = values
    return dense
