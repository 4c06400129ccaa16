"""Compressed weights made whole: blocks of scales, look-up tables, the values of a mask."""

from collections.abc import Sequence

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.raising.types import Array

# A small file must not become a large one in memory; Apple's own compression has vectors of 8 at most.
_LARGEST_VECTOR = 256


def dequantized(data: Array, scale: Array, before: Array | None, after: Array | None = None) -> Array:
    """Scale * (data - before) + after, in fp32; a value of each for each block of shape data.shape / scale.shape.

    Raises:
        InvalidArgumentError: the blocks do not divide the data.
    """
    result = data.astype(np.float32)
    if before is not None and (shift := _spread(before, data.shape)).any():
        result -= shift.astype(np.float32)
    result *= _spread(scale, data.shape).astype(np.float32)
    if after is not None and (shift := _spread(after, data.shape)).any():
        result += shift.astype(np.float32)
    return result


def _spread(value: Array, shape: Sequence[int]) -> Array:
    """`value` with each element repeated until it has as many as `shape`."""
    if value.ndim != len(shape) or any(not have or want % have for have, want in zip(value.shape, shape, strict=True)):
        raise InvalidArgumentError(f"blocks of {list(value.shape)} do not divide {list(shape)}")
    for axis, size in enumerate(shape):
        # Dimensions of 1 broadcast.
        if value.shape[axis] not in (1, size):
            value = np.repeat(value, size // value.shape[axis], axis)
    return value


def tables_of(shape: Sequence[int], lut: Sequence[int]) -> Array:
    """The number of the table that each index is of; tables are [blocks along each dimension..., values, vector].

    Args:
        shape: of the indices.
        lut: the shape of the tables.

    Raises:
        InvalidArgumentError: the tables do not divide the indices.
        UnsupportedError: their vectors are too long.
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
    """What the tables have for each index; vectors lie along `vector_axis`. Raises as `tables_of`, and for no axis."""
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
    """`values` where the mask is not 0, in row-major order; 0 elsewhere.

    Raises:
        InvalidArgumentError: there are more or fewer values.
    """
    count = int(np.count_nonzero(mask))
    if values.shape != (count,):
        raise InvalidArgumentError(f"there are {values.size} values for {count} places in the mask")
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask != 0] = values
    return dense
