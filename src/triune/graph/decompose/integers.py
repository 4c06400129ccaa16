"""Matrix products and convolutions of quantized tensors, in fp32, which is exact for integers up to 2**24.

If sums may be larger, and do not become floats anyway, one operand is split into digits: x = 16 * high + low. The
products of the digits are exact in fp32, and are added in int32.
"""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from triune.graph.builder import Builder
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.decompose.whole_sums import become_floats, digits_of, largest_sum, num_bits, of_digits

CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
"""The attributes of a convolution."""


def minus_zero_point(c: Context, x: str, zero: str, axis: int | None = None) -> str:
    """Build x - zero point in fp32 for integers `x`. `zero` is one number, a vector along `axis`, or "" for none."""
    b = c.build
    wide = b.cast(x, TensorProto.FLOAT)
    if not zero:
        return wide
    shift = b.cast(zero, TensorProto.FLOAT)
    rank, zero_rank = c.values.rank(x), c.values.rank(zero)
    if axis is not None and zero_rank == 1 and rank is not None:
        broadcast_shape = [1] * rank
        broadcast_shape[axis] = -1
        shape = c.values.shape(zero)
        if shape is not None and shape[0] != 1:
            shift = b.op("Reshape", shift, b.ints(*broadcast_shape))
    return b.op("Sub", wide, shift)


def weight_minus_zero_point(c: Context, x: str, zero: str, axis: int) -> str:
    """Build x - zero point in fp32, as a DequantizeLinear of scale 1 where possible, so that weights stay quantized."""
    b = c.build
    if not zero:
        return b.op("DequantizeLinear", x, b.constant(1, np.float32))
    shape = c.values.static_shape(zero)
    if shape is None or len(shape) > 1 or (len(shape) == 1 and c.values.rank(x) is None):
        return minus_zero_point(c, x, zero, axis if axis == 0 else None)
    if shape in ((), (1,)):
        point = b.op("Reshape", zero, b.constant([], np.int64))
        return b.op("DequantizeLinear", x, b.constant(1, np.float32), point)
    scale = b.constant(np.ones(shape), np.float32)
    return b.op("DequantizeLinear", x, scale, zero, axis=axis)


def dynamic_levels(b: Builder, x: str) -> tuple[str, str, str]:
    """Quantize fp32 `x` to uint8 by its own range, extended to include 0; returns levels, scale and zero point, all
    fp32.

    scale = (max - min) / 255, zero = round(-min / scale), levels = clip(round(x / scale) + zero, 0, 255). If all x are
    0, the scale is 1, as in ONNX Runtime; in ONNX's function body it is 0, and the levels are NaN before the cast.
    """
    zero, one, most = (b.constant(each, np.float32) for each in (0, 1, 255))
    least = b.op("Min", b.op("ReduceMin", x, keepdims=0), zero)
    largest = b.op("Max", b.op("ReduceMax", x, keepdims=0), zero)
    scale = b.op("Div", b.op("Sub", largest, least), most)
    scale = b.op("Where", b.op("Equal", scale, zero), one, scale)
    point = b.op("Clip", b.op("Round", b.op("Div", b.op("Neg", least), scale)), zero, most)
    levels = b.op("Add", b.op("Round", b.op("Div", x, scale)), point)
    return b.op("Clip", levels, zero, most), scale, point


def dynamic_quantize_linear(c: Context) -> bool:
    """DynamicQuantizeLinear: the levels, the scale and the zero point of `dynamic_levels`."""
    levels, scale, point = dynamic_levels(c.build, c.input(0))
    c.give(c.build.cast(levels, TensorProto.UINT8))
    c.give(scale, 1)
    c.give(c.build.cast(point, TensorProto.UINT8), 2)
    return True


def mat_mul_integer(c: Context) -> bool:
    """MatMulInteger: (A - a) @ (B - b). The zero point `a` is one number or one for each row; `b` is one number or one
    for each column.
    """
    rank = c.values.rank(c.input(0))
    if rank is None:
        return False
    rows = minus_zero_point(c, c.input(0), c.input(2), rank - 2 if rank > 1 else None)
    columns = weight_minus_zero_point(c, c.input(1), c.input(3), -1)
    _give_whole(c, rows, (-2,), lambda x: c.build.op("MatMul", x, columns))
    return True


def conv_integer(c: Context) -> bool:
    """ConvInteger: the convolution of (x - x_zero) with (w - w_zero)."""
    rest = {name: c.attributes[name] for name in CONV if name in c.attributes}
    kernel = weight_minus_zero_point(c, c.input(1), c.input(3), 0)
    rank = c.values.rank(c.input(1)) or 0
    image = minus_zero_point(c, c.input(0), c.input(2))
    _give_whole(c, image, tuple(range(1, rank)), lambda x: c.build.op("Conv", x, kernel, **rest))
    return True


def _give_whole(c: Context, x: str, axes: tuple[int, ...], multiply: Callable[[str], str]) -> None:
    """Build the node's output in int32: `multiply(x)`, which sums over axes of the second operand.

    Args:
        c: the node.
        x: integers in fp32, at most 255.
        axes: the axes of the second operand over which it is summed.
        multiply: builds the product of its argument and the second operand, such as a MatMul or a Conv.
    """
    b = c.build
    largest = largest_sum(c, axes, 1, 3)
    c.give(whole_sum(b, x, None if become_floats(c, c.output(0)) else num_bits(largest), multiply))


def whole_sum(b: Builder, x: str, bits: int | None, multiply: Callable[[str], str]) -> str:
    """Build `multiply(x)` in int32. If `bits` is given, x is split into digits of `bits` bits, which are multiplied one
    by one, and the products are added.
    """
    parts = [x] if bits is None else digits_of(b, x, bits)
    sums = [b.cast(b.op("Round", multiply(part)), TensorProto.INT32) for part in parts]
    return sums[0] if bits is None else of_digits(b, sums, bits)


TABLE: dict[str, Decomposition] = {
    "DynamicQuantizeLinear": dynamic_quantize_linear,
    "MatMulInteger": mat_mul_integer,
    "ConvInteger": conv_integer,
}
