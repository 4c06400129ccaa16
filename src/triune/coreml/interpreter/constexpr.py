"""Decompression of weights: affine quantization, palettes, sparse weights, and combinations of these."""

from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.coreml.interpreter.elementwise import cast
from triune.coreml.interpreter.quantization import along
from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array, Packed


def affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Any) -> Array:
    """Compute scale * (quantized_data - zero_point). `scale` and `zero_point` are scalars or vectors along `axis`."""
    ndim, axis = quantized_data.ndim, int(axis)
    shifted = quantized_data.astype(np.float32) - along(zero_point, ndim, axis).astype(np.float32)
    return shifted * along(scale, ndim, axis)


def blockwise_shift_scale(data: Array, scale: Array, offset: Array | None) -> Array:
    """Compute scale * (data - offset), where each block of data has its own scale and offset.

    Raises:
        InvalidArgumentError: a dimension of data is not a multiple of the number of blocks.
    """
    values = data.astype(np.float32)
    if offset is not None:
        values = values - _repeat_blocks(offset.astype(np.float32), data.shape)
    return values * _repeat_blocks(scale.astype(np.float32), data.shape)


def lut_to_dense(indices: Array, lut: Array, shape: Array | None, vector_axis: Any) -> Array:
    """Look up indices in a table (palette).

    On iOS 16 `indices` are packed bytes, `lut` is one table (entries,), and `shape` is the shape of the result. On iOS
    18 `lut` is (*blocks, entries, vector), and each index becomes a vector along `vector_axis`.
    """
    if shape is not None:
        sizes = tuple(int(size) for size in shape)
        return lut[_unpack(indices, int(lut.size - 1).bit_length(), sizes)]
    if lut.ndim != indices.ndim + 2:
        raise InvalidArgumentError(f"a table of {list(lut.shape)} for indices of {list(indices.shape)}")
    num_entries, length = lut.shape[-2:]
    # Repeat the table of each block for all indices of the block, then take each index's entry: (*indices, vector).
    tables = _repeat_blocks(lut.reshape(*lut.shape[:-2], -1), (*indices.shape, num_entries * length))
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
    """Look up indices as iOS 18's `lut_to_dense`, but only those where the mask is 1.

    Returns:
        the mask of the result, and the elements of the result where this mask is 1.
    """
    dense = lut_to_dense(sparse_to_dense(indices_nonzero_data, indices_mask, None), lut, None, vector_axis)
    mask = indices_mask
    length = lut.shape[-1]
    if length > 1:
        mask = np.repeat(mask, length, int(vector_axis))
    return mask, dense[mask != 0]


def sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None
) -> tuple[Array, Array]:
    """Compute `blockwise_shift_scale` only where the mask is 1.

    Returns:
        `data_mask`, and the elements where it is 1.
    """
    dense = blockwise_shift_scale(sparse_to_dense(nonzero_data, data_mask, None), scale, offset)
    return data_mask, dense[data_mask != 0]


def sparse_to_dense(nonzero_data: Array, mask: Array, shape: Array | None) -> Array:
    """Put the elements of `nonzero_data` where the mask is 1, and 0 elsewhere.

    On iOS 16 the mask is packed in bytes, and `shape` is the shape of the result.

    Raises:
        InvalidArgumentError: the mask has more or fewer ones than there are elements.
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
    """Cast a constant to another element type."""
    return cast(source_val, output_dtype)


def _unpack(data: Array, bits: int, shape: tuple[int, ...]) -> Array:
    if bits == 8:
        return data[: int(np.prod(shape))].reshape(shape)
    needed = -(-int(np.prod(shape)) * bits // 8)
    if data.size < needed:
        raise InvalidArgumentError(f"{data.size} bytes for {list(shape)} elements of {bits} bits")
    return Packed(data[:needed].astype(np.uint8), bits, False, shape).unpack()


def _repeat_blocks(values: Array, shape: tuple[int, ...]) -> Array:
    """Repeat the value of each block for all elements of the block."""
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
