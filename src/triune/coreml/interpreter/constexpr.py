"""Decompress weights: affine quantization, palettes, sparse weights, and chains of these."""

from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.coreml.interpreter.elementwise import cast
from triune.coreml.interpreter.quantization import along
from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array, Packed


def affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Any) -> Array:
    """Scale x (q - zero point): scalars, or vectors along an axis."""
    ndim, axis = quantized_data.ndim, int(axis)
    shifted = quantized_data.astype(np.float32) - along(zero_point, ndim, axis).astype(np.float32)
    return shifted * along(scale, ndim, axis)


def blockwise_shift_scale(data: Array, scale: Array, offset: Array | None) -> Array:
    """Scale x (q - offset), one scale and offset for each block of data.

    Raises:
        InvalidArgumentError: the blocks do not divide the data.
    """
    values = data.astype(np.float32)
    if offset is not None:
        values = values - _spread(offset.astype(np.float32), data.shape)
    return values * _spread(scale.astype(np.float32), data.shape)


def lut_to_dense(indices: Array, lut: Array, shape: Array | None, vector_axis: Any) -> Array:
    """Look up indices in a table (palette).

    iOS 16: `indices` are packed bytes, `lut` has one table of (entries,), and `shape` is the result's.
    iOS 18: `lut` is (*blocks, entries, vector); each index becomes a vector along `vector_axis`.
    """
    if shape is not None:
        sizes = tuple(int(size) for size in shape)
        return lut[_unpack(indices, int(lut.size - 1).bit_length(), sizes)]
    if lut.ndim != indices.ndim + 2:
        raise InvalidArgumentError(f"a table of {list(lut.shape)} for indices of {list(indices.shape)}")
    num_entries, length = lut.shape[-2:]
    # A table for every element, then the entry of each: (*indices, vector).
    tables = _spread(lut.reshape(*lut.shape[:-2], -1), (*indices.shape, num_entries * length))
    tables = tables.reshape(*indices.shape, num_entries, length)
    vectors = np.take_along_axis(tables, indices.astype(np.int64)[..., None, None], axis=-2)[..., 0, :]
    if length == 1 and vector_axis is None:
        return vectors[..., 0]
    axis = int(vector_axis) % indices.ndim
    result = list(indices.shape)
    result[axis] *= length
    return np.moveaxis(vectors, -1, axis + 1).reshape(result)


def lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: Any
) -> tuple[Array, Array]:
    """As iOS 18's `lut_to_dense`, only for elements in a mask. Returns the result's mask and its elements."""
    dense = lut_to_dense(sparse_to_dense(indices_nonzero_data, indices_mask, None), lut, None, vector_axis)
    mask = indices_mask
    length = lut.shape[-1]
    if length > 1:
        mask = np.repeat(mask, length, int(vector_axis))
    return mask, dense[mask != 0]


def sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None
) -> tuple[Array, Array]:
    """As `blockwise_shift_scale`, only for elements in a mask. Returns the mask and the elements."""
    dense = blockwise_shift_scale(sparse_to_dense(nonzero_data, data_mask, None), scale, offset)
    return data_mask, dense[data_mask != 0]


def sparse_to_dense(nonzero_data: Array, mask: Array, shape: Array | None) -> Array:
    """The elements where the mask has ones, else 0. In iOS 16 the mask is packed, and `shape` is the result's.

    Raises:
        InvalidArgumentError: there are more or fewer elements than ones.
    """
    if shape is not None:
        mask = _unpack(mask, 1, tuple(int(size) for size in shape))
    count = int(np.count_nonzero(mask))
    if count != nonzero_data.size:
        raise InvalidArgumentError(f"{nonzero_data.size} elements for a mask of {count} ones")
    dense = np.zeros(mask.shape, nonzero_data.dtype)
    dense[mask != 0] = nonzero_data
    return dense


def constexpr_cast(source_val: Array, output_dtype: str) -> Array:
    """The constant as another type."""
    return cast(source_val, output_dtype)


def _unpack(data: Array, bits: int, shape: tuple[int, ...]) -> Array:
    if bits == 8:
        return data[: int(np.prod(shape))].reshape(shape)
    needed = -(-int(np.prod(shape)) * bits // 8)
    if data.size < needed:
        raise InvalidArgumentError(f"{data.size} bytes for {list(shape)} elements of {bits} bits")
    return Packed(data[:needed].astype(np.uint8), bits, False, shape).unpack()


def _spread(values: Array, shape: tuple[int, ...]) -> Array:
    """Repeat each block's value for all elements of the block."""
    if values.ndim != len(shape) or any(size % blocks for size, blocks in zip(shape, values.shape, strict=True)):
        raise InvalidArgumentError(f"blocks of {list(values.shape)} do not divide {list(shape)}")
    for axis, size in enumerate(shape):
        values = np.repeat(values, size // values.shape[axis], axis)
    return values


FAMILY: Family = {
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_cast": constexpr_cast,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_lut_to_sparse": lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": sparse_to_dense,
}
