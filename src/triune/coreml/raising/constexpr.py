"""Compressed weights: constexpr operations, which are computed while the program is raised.

In iOS 16 they have packed bytes and a shape, in iOS 18 tensors of small element types. An operation may read the
results of another one, such as a mask and the data where the mask is 1. Weights that DequantizeLinear represents
exactly can stay quantized.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.coreml.mil import Array, DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.elementwise_unary import dtype_called
from triune.coreml.raising.given import Given
from triune.graph.raising.compressed import dequantized, filled, looked_up
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.palettes import palette
from triune.graph.raising.quantized_weights import quantized_weights

_WIDEST_BYTES = 4
"""The bytes of an element of decompressed weights, which are computed in fp32."""


def _constant(graph: Graph, given: Given, value: Array, dtype: DType, output: int = 0) -> Tensor:
    outputs = given.operation.outputs
    name = outputs[output].name if output < len(outputs) else given.operation.name
    return Tensor(graph.root.fresh(name), dtype, value.shape, value.astype(dtype.numpy, copy=False))


def _affine_dequantize(graph: Graph, given: Given) -> Tensor:
    """Compute scale * (quantized_data - zero_point). `scale` and `zero_point` are scalars, or vectors along `axis`."""
    data, scale, zero_point = given.array("quantized_data"), given.array("scale"), given.array("zero_point")
    axis = given.axis(of="quantized_data")
    for name, value in (("scale", scale), ("zero_point", zero_point)):
        if value.ndim > 1 or value.size not in (1, data.shape[axis]):
            raise InvalidArgumentError(f"'{name}' is of shape {list(value.shape)} for {data.shape[axis]} along {axis}")
    along = [-1 if each == axis else 1 for each in range(data.ndim)]
    return _shift_scale(graph, given, "quantized_data", scale.reshape(along), zero_point.reshape(along), "zero_point")


def _blockwise_shift_scale(graph: Graph, given: Given) -> Tensor:
    """Compute scale * (data - offset), where each block of data has its own scale and offset."""
    return _shift_scale(graph, given, "data", given.array("scale"), given.maybe_array("offset"), "offset")


def _shift_scale(graph: Graph, given: Given, data: str, scale: Array, offset: Array | None, offset_name: str) -> Tensor:
    """Compute scale * (data - offset). If quantized weights are to be kept, and DequantizeLinear represents these
    exactly, record their quantized form in the graph, too.
    """
    value, dtype = given[data], given["scale"].dtype
    graph.root.stored.make(_WIDEST_BYTES, *given.array(data).shape)
    result = _constant(graph, given, dequantized(given.array(data), scale, offset), dtype)
    offset_tensor = given.maybe(offset_name)
    if graph.root.keep_quantized and (offset_tensor is None or offset_tensor.dtype is value.dtype):
        weights = quantized_weights(given.array(data), value.dtype, scale, dtype, offset)
        if weights is not None:
            graph.root.quantized[result.name] = weights
    return result


def _lut_to_dense(graph: Graph, given: Given) -> Tensor:
    lut, dtype = given.array("lut"), given["lut"].dtype
    shape = given.maybe_ints("shape")
    if shape is None:
        indices = given.array("indices")
        graph.root.stored.make(_WIDEST_BYTES, indices.size, *lut.shape[-1:])
        return _with_palette(
            graph, _constant(graph, given, looked_up(indices, lut, _vector_axis(given)), dtype), indices, lut
        )
    if lut.size not in (2, 4, 16, 64, 256) or lut.ndim != 1:
        raise InvalidArgumentError(f"'lut' is of shape {list(lut.shape)}; it has 2, 4, 16, 64 or 256 values")
    bits = lut.size.bit_length() - 1
    indices = _unpacked(given.array("indices"), bits, shape, "indices").reshape(shape)
    graph.root.stored.make(_WIDEST_BYTES, indices.size)
    dense = _constant(graph, given, lut[indices], dtype)
    return _with_palette(graph, dense, indices, lut.reshape([1] * indices.ndim + [-1, 1]))


def _with_palette(graph: Graph, dense: Tensor, indices: Array, lut: Array) -> Tensor:
    """Return the dense weights `dense`, and record them as a palette (`lut` and `indices`) if wanted and possible."""
    kept = palette(indices, lut, dense.dtype) if graph.root.keep_quantized else None
    if kept is not None:
        graph.root.quantized[dense.name] = kept
    return dense


def _vector_axis(given: Given) -> int | None:
    return None if given.maybe_array("vector_axis") is None else given.integer("vector_axis")


def _unpacked(data: Array, bits: int, shape: Sequence[int], name: str) -> Array:
    """Unpack elements of `bits` bits from bytes, lowest bits first.

    Raises:
        InvalidArgumentError: `shape` takes another number of bytes than `data` has.
    """
    count = math.prod(shape)
    expected = (count * bits + 7) // 8
    if data.shape != (expected,) or any(size < 0 for size in shape):
        raise InvalidArgumentError(
            f"'{name}' has {data.size} bytes; shape {list(shape)} of {bits} bits takes {expected}"
        )
    if bits == 8:
        return data
    each = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    return np.packbits(each, axis=1, bitorder="little").reshape(count)


def _sparse_to_dense(graph: Graph, given: Given) -> Tensor:
    """Put the elements of `nonzero_data`, in row-major order, where the mask is 1, and 0 elsewhere."""
    shape = given.maybe_ints("shape")
    mask = given.array("mask")
    if shape is not None:
        mask = _unpacked(mask, 1, shape, "mask").reshape(shape)
    graph.root.stored.make(_WIDEST_BYTES, mask.size)
    value = filled(given.array("nonzero_data"), mask)
    return _constant(graph, given, value, given["nonzero_data"].dtype)


def _lut_to_sparse(graph: Graph, given: Given) -> Sequence[Tensor]:
    """Look up the indices in `lut`.

    Returns:
        the mask, in which each element is repeated for all elements of the vector that it selects, and the looked-up
        elements where the mask is 1.
    """
    mask, lut, vector_axis = given.array("indices_mask"), given.array("lut"), _vector_axis(given)
    graph.root.stored.make(_WIDEST_BYTES, mask.size, *lut.shape[-1:])
    dense = looked_up(filled(given.array("indices_nonzero_data"), mask), lut, vector_axis)
    if vector_axis is not None:
        mask = np.repeat(mask, lut.shape[-1], vector_axis)
    return [
        _constant(graph, given, mask, given["indices_mask"].dtype),
        _constant(graph, given, dense[mask != 0], given["lut"].dtype, 1),
    ]


def _sparse_blockwise_shift_scale(graph: Graph, given: Given) -> Sequence[Tensor]:
    """Compute scale * (data - offset) where the mask is 1.

    Returns:
        the mask, unchanged, and the elements where it is 1.
    """
    mask = given.array("data_mask")
    graph.root.stored.make(_WIDEST_BYTES, mask.size)
    dense = filled(given.array("nonzero_data"), mask)
    value = dequantized(dense, given.array("scale"), given.maybe_array("offset"))
    return [
        _constant(graph, given, mask, given["data_mask"].dtype),
        _constant(graph, given, value[mask != 0], given["scale"].dtype, 1),
    ]


def _cast(graph: Graph, given: Given) -> Tensor:
    dtype = dtype_called(given.text("output_dtype"))
    graph.root.stored.make(_WIDEST_BYTES, given.array("source_val").size)
    return _constant(graph, given, given.array("source_val"), dtype)


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "constexpr_affine_dequantize": _affine_dequantize,
        "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
        "constexpr_cast": _cast,
        "constexpr_lut_to_dense": _lut_to_dense,
        "constexpr_lut_to_sparse": _lut_to_sparse,
        "constexpr_sparse_blockwise_shift_scale": _sparse_blockwise_shift_scale,
        "constexpr_sparse_to_dense": _sparse_to_dense,
    }
)
