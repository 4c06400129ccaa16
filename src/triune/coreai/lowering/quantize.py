"""Lowering of QuantizeLinear and DequantizeLinear. Integers of 4 and 8 bits keep their types; 16 bits become int32."""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import cut, dims_of, product, shaped
from triune.coreai.lowering.values import (
    cast,
    constant,
    dtype_of,
    int32,
    int32s,
    is_float,
    known_shape,
    rank_of,
    reshape,
    shape_of,
    sizes,
    sizes_of,
)
from triune.graph.axes import positive
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.quantized import quantized_type
from triune.graph.weight_files import array_of

_PRECISIONS: Mapping[int, Any] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
_PACKED: Mapping[int, np.dtype[Any]] = {
    TensorProto.INT8: np.dtype(np.int8),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.INT4: np.dtype(ml_dtypes.int4),
    TensorProto.UINT4: np.dtype(ml_dtypes.uint4),
}
"""The quantized types that Core AI's quantize and dequantize operations accept."""

_HELD = (TensorProto.INT16, TensorProto.UINT16)


def _quantize(c: Context) -> None:
    """Lower QuantizeLinear: saturate(round(x / scale) + zero_point)."""
    x, scale = c.input(0), _scale(c)
    elem_type = quantized_type(c)
    if elem_type not in _PACKED and elem_type not in _HELD:
        kind = helper.tensor_dtype_to_string(elem_type)
        raise Refusal(f"quantization to {kind}; use INT8, UINT8, INT4 or UINT4")
    plain = dtype_of(scale) if is_float(scale) else np.float32
    precision = _PRECISIONS.get(int(c.attributes.get("precision", 0)), plain)
    x, scale = cast(x, precision), cast(scale, precision)
    axes = _scaled_axes(c, scale, x)
    if elem_type in _PACKED and axes is not None:
        scale = _plain(scale, axes)
        c.give(ops.quantize(x, scale, _offset(c, scale, _PACKED[elem_type]), _zeros(scale, precision), axes))
        return
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    limits = ml_dtypes.iinfo(dtype)
    levels = cast(ops.round_(ops.broadcasting_divide(x, _spread(c, scale, x))), np.float32)
    if c.has(2):
        levels = ops.broadcasting_add(levels, _spread(c, cast(_small(c, 2), np.float32), x))
    low, high = (constant(np.float32(end)) for end in (limits.min, limits.max))
    levels = ops.broadcasting_minimum(ops.broadcasting_maximum(levels, low), high)
    c.give(cast(levels, dtype if elem_type in _PACKED else np.int32))


def _dequantize(c: Context) -> None:
    """Lower DequantizeLinear: (x - zero_point) * scale, in the type of the scale or in `output_dtype`."""
    x, scale = _small(c, 0), _scale(c)
    wanted = _PRECISIONS.get(int(c.attributes.get("output_dtype", 0)), dtype_of(c.input(1)))
    if dtype_of(scale) != dtype_of(c.input(1)):
        c.give(cast(_dequantized(c, x, scale, np.float32), wanted))
    else:
        c.give(_dequantized(c, x, scale, wanted))


def _dequantized(c: Context, x: Value, scale: Value, wanted: Any) -> Value:
    is_packed = dtype_of(x) in _PACKED.values()
    axes = _scaled_axes(c, scale, x)
    if is_packed and axes is not None:
        scale = _plain(scale, axes)
        return ops.dequantize(x, scale, _offset(c, scale, dtype_of(x)), _zeros(scale, wanted), axes)
    if is_packed and _is_blockwise(c, scale, x):
        return ops.blockwise_shift_scale(x, scale, _offset(c, scale, dtype_of(x)), _zeros(scale, wanted))
    x = cast(x, np.int32)
    if c.has(2):
        x = ops.broadcasting_sub(x, _spread(c, cast(_small(c, 2), np.int32), x))
    return cast(ops.broadcasting_mul(cast(x, dtype_of(scale)), _spread(c, scale, x)), wanted)


def _scale(c: Context) -> Value:
    """The scale of the node. Subnormal numbers of fp16, which Apple's library (1.0.0b3) misreads, become fp32."""
    array = c.constant(1)
    if array is None or array.dtype != np.float16:
        return c.input(1)
    sizes = np.abs(array[array != 0])
    return c.input(1) if (sizes >= np.finfo(np.float16).smallest_normal).all() else constant(array.astype(np.float32))


def _small(c: Context, index: int) -> Value:
    """An operand. A constant of 4 or 8 bits keeps its type; any other value has the type that it has in the scope."""
    tensor = c.scope.tensor(c.node.input[index])
    is_small = tensor is not None and tensor.data_type in _PACKED and 0 not in tensor.dims
    return constant(array_of(tensor)) if tensor is not None and is_small else c.input(index)


def _is_single(scale: Value) -> bool:
    return rank_of(scale) == 0 or shape_of(scale) == (1,)


def _scaled_axes(c: Context, scale: Value, x: Value) -> Value | None:
    """The operand `axes` of Core AI's operations: all axes for a single scale, one axis for a scale per slice.

    None for blockwise scales, which these operations lack.
    """
    if rank_of(x) == 0:
        return None
    if _is_single(scale):
        return int32s(range(rank_of(x)))
    return None if c.attributes.get("block_size", 0) else int32(_axis(c, x))


def _axis(c: Context, x: Value) -> int:
    return positive(int(c.attributes.get("axis", 1)), rank_of(x))


def _plain(scale: Value, axes: Value) -> Value:
    """Reshape a single scale to a scalar, as Core AI's operations require; return a vector of scales unchanged."""
    return reshape(scale, []) if rank_of(axes) else scale


def _offset(c: Context, scale: Value, dtype: Any) -> Value:
    """The zero point, in the shape of `scale` and the quantized dtype; zeros if the node has none."""
    if not c.has(2):
        return _zeros(scale, dtype)
    value = cast(_small(c, 2), dtype)
    return reshape(value, []) if rank_of(scale) == 0 else value


def _zeros(scale: Value, dtype: Any) -> Value:
    shape = known_shape(scale)
    if shape is not None:
        return constant(np.zeros(shape, dtype))
    return ops.broadcast_to(constant(np.zeros((), dtype)), sizes_of(scale, np.uint32))


def _is_blockwise(c: Context, scale: Value, x: Value) -> bool:
    """Whether the scales are blockwise, and the size of a block divides that of the dimension."""
    if not rank_of(x) or rank_of(scale) != rank_of(x):
        return False
    size, count = shape_of(x)[_axis(c, x)], shape_of(scale)[_axis(c, x)]
    return size is not None and count is not None and size == count * int(c.attributes["block_size"])


def _spread(c: Context, value: Value, x: Value) -> Value:
    """Reshape a scale or zero point so that it broadcasts to `x`. It has one number for the whole of `x`, one for each
    index of the attribute `axis`, or one for each block.
    """
    if _is_single(value):
        return reshape(value, [])
    axis = _axis(c, x)
    block = int(c.attributes.get("block_size", 0))
    if not block:
        return reshape(value, [-1 if each == axis else 1 for each in range(rank_of(x))])
    size = shape_of(x)[axis]
    if size is None:
        raise Refusal("a blocked dimension that is not fixed; give its size with --shape")
    repeats = [1] * (rank_of(value) + 1)
    repeats[axis + 1] = block
    repeated = ops.tile(ops.expand_dims(value, int32s([axis + 1])), sizes(repeats))
    dims = dims_of(value)
    dims[axis] = product([dims[axis], block])
    return cut(shaped(repeated, dims), axis, 0, size)


TABLE: dict[str, Lowering] = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}
