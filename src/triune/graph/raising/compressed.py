"""Decompress weights: quantized by block, palettized (indices into look-up tables), or sparse (values and a mask)."""

from collections.abc import Sequence

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.raising.types import Array

# The most elements of an entry of a look-up table, so that a small file cannot become large in memory. Entries that
# Apple's own tools write have at most 8.
_MOST_ELEMENTS_OF_ENTRY = 256


def dequantized(data: Array, scale: Array, before: Array | None, after: Array | None = None) -> Array:
    """Compute `scale * (data - before) + after` in fp32. `scale`, `before` and `after` have an element for each block.

    Raises:
        InvalidArgumentError: the shape of the data is not a multiple of that of another operand.
    """
    result = data.astype(np.float32)
    if before is not None and (shift := _repeat_blocks(before, data.shape)).any():
        result -= shift.astype(np.float32)
    result *= _repeat_blocks(scale, data.shape).astype(np.float32)
    if after is not None and (shift := _repeat_blocks(after, data.shape)).any():
        result += shift.astype(np.float32)
    return result


def _repeat_blocks(value: Array, shape: Sequence[int]) -> Array:
    """Repeat each element, which belongs to a block, along each axis, so that the result broadcasts to `shape`."""
    if value.ndim != len(shape) or any(
        not num_blocks or size_of_axis % num_blocks for num_blocks, size_of_axis in zip(value.shape, shape, strict=True)
    ):
        raise InvalidArgumentError(f"blocks of {list(value.shape)} do not divide {list(shape)}")
    for axis, size in enumerate(shape):
        # Do not repeat dimensions of size 1: they broadcast.
        if value.shape[axis] not in (1, size):
            value = np.repeat(value, size // value.shape[axis], axis)
    return value


def tables_of(shape: Sequence[int], lut: Sequence[int]) -> Array:
    """For each index, the number of the look-up table that it belongs to: each block of indices has a table.

    Args:
        shape: the shape of the indices.
        lut: the shape of the tables: [blocks along each axis..., entries of a table, elements of an entry].

    Raises:
        InvalidArgumentError: the shape of the indices is not a multiple of the number of blocks.
        UnsupportedError: entries have more than 256 elements.
    """
    if len(lut) != len(shape) + 2:
        raise InvalidArgumentError(f"'lut' is of shape {list(lut)} for indices of {list(shape)}")
    if lut[-1] > _MOST_ELEMENTS_OF_ENTRY:
        raise UnsupportedError(
            f"the entries of 'lut' have {lut[-1]} elements; at most {_MOST_ELEMENTS_OF_ENTRY} are supported"
        )
    if any(
        not num_blocks or size_of_axis % num_blocks for num_blocks, size_of_axis in zip(lut[:-2], shape, strict=True)
    ):
        raise InvalidArgumentError(f"tables of {list(lut[:-2])} do not divide {list(shape)}")
    table = np.zeros(tuple(shape), np.int64)
    for axis, (num_blocks, size_of_axis) in enumerate(zip(lut[:-2], shape, strict=True)):
        block_indices = np.arange(size_of_axis, dtype=np.int64) // (size_of_axis // num_blocks)
        table = table * num_blocks + block_indices.reshape([-1] + [1] * (len(shape) - 1 - axis))
    return table


def looked_up(indices: Array, lut: Array, vector_axis: int | None) -> Array:
    """Look up the entry of each index in its table.

    Args:
        indices: the indices, of any shape.
        lut: the tables: [blocks along each axis..., entries of a table, elements of an entry].
        vector_axis: the axis of the result along which the elements of an entry are put; None if entries have one
            element.

    Raises:
        InvalidArgumentError: the shape of the indices is not a multiple of the number of blocks, or `vector_axis` is
            missing.
        UnsupportedError: entries have more than 256 elements.
    """
    table = tables_of(indices.shape, lut.shape)
    vectors = lut.reshape(-1, *lut.shape[-2:])[table, indices]
    if lut.shape[-1] == 1:
        return vectors[..., 0]
    if vector_axis is None:
        raise InvalidArgumentError(f"'vector_axis' is missing, and the entries of 'lut' have {lut.shape[-1]} elements")
    axis = range(indices.ndim)[vector_axis]
    shape = list(indices.shape)
    shape[axis] *= lut.shape[-1]
    return np.moveaxis(vectors, -1, axis + 1).reshape(shape)


def filled(values: Array, mask: Array) -> Array:
    """Expand sparse weights: `values`, in row-major order, where the mask is not 0, and 0 elsewhere.

    Raises:
        InvalidArgumentError: the number of values is not the number of nonzero elements of the mask.
    """
    count = int(np.count_nonzero(mask))
    if values.shape != (count,):
        raise InvalidArgumentError(f"there are {values.size} values, and {count} elements of the mask are not 0")
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask != 0] = values
    return dense
