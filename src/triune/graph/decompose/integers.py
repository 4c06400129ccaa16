"""Matrix products and convolutions of quantized tensors, in fp32, which is exact for integers up to 2**24.

If sums may be larger, and do not become floats anyway, one operand is split into digits: x = 16 * high + low. The
products of the digits are exact in fp32, and are added in int32.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from triune.graph.builder import Builder
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.decompose.whole_sums import digits_of, largest_sum, num_bits, of_digits

_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


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
    """DynamicQuantizeLinear: levels, scale and zero point."""
    levels, scale, point = dynamic_levels(c.build, c.input(0))
    c.give(c.build.cast(levels, TensorProto.UINT8))
    c.give(scale, 1)
    c.give(c.build.cast(point, TensorProto.UINT8), 2)
    return True


def mat_mul_integer(c: Context) -> bool:
    """MatMulInteger: (A - a) @ (B - b); the zero point `a` is one number or one for each row, `b` one number or one for
    each column.
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
    rest = {name: c.attributes[name] for name in _CONV if name in c.attributes}
    kernel = weight_minus_zero_point(c, c.input(1), c.input(3), 0)
    rank = c.values.rank(c.input(1)) or 0
    image = minus_zero_point(c, c.input(0), c.input(2))
    _give_whole(c, image, tuple(range(1, rank)), lambda x: c.build.op("Conv", x, kernel, **rest))
    return True


def _give_whole(c: Context, x: str, axes: tuple[int, ...], multiply: Callable[[str], str]) -> None:
    """Give `multiply(x)`, a sum over the axes of the node's second operand, in int32.

    Args:
        c: the node.
        x: integers in fp32, at most 255.
        axes: the axes of the second operand over which it is summed.
        multiply: builds the product of its argument, which is linear in it.
    """
    b = c.build
    bits = num_bits(c, largest_sum(c, axes))
    parts = [x] if bits is None else digits_of(b, x, bits)
    sums = [b.cast(b.op("Round", multiply(part)), TensorProto.INT32) for part in parts]
    c.give(sums[0] if bits is None else of_digits(b, sums, bits))


def _scale(c: Context, index: int) -> str:
    """Build a scale as fp32: in fp16 the sums of products would be too inexact to be rounded to integers."""
    name = c.input(index)
    is_half = c.values.elem_type(name) == TensorProto.FLOAT16
    return c.build.cast(name, TensorProto.FLOAT) if is_half else name


def _dequantized(c: Context, first: int, axis: int | None = None) -> str:
    names = [c.input(first), _scale(c, first + 1), c.input(first + 2)]
    if axis is None:
        return c.build.op("DequantizeLinear", *names)
    return c.build.op("DequantizeLinear", *names, axis=axis)


def q_linear_mat_mul(c: Context) -> bool:
    """QLinearMatMul: round((A - a) @ (B - b) * (a_scale * b_scale / y_scale)) + y_zero, in fp32."""
    b, split = c.build, _split_scales(c)
    if split is None:
        product = b.op("MatMul", _dequantized(c, 0), _dequantized(c, 3))
        c.give(b.op("QuantizeLinear", product, _scale(c, 6), c.input(7)))
        return True
    left = b.op("DequantizeLinear", c.input(0), b.constant(split.left, np.float32), c.input(2))
    right = b.op("DequantizeLinear", c.input(3), b.constant(split.right, np.float32), c.input(5))
    c.give(_levels(c, b.op("MatMul", left, right), split.rest))
    return True


def q_linear_conv(c: Context) -> bool:
    """QLinearConv: round((conv(x - x_zero, w - w_zero) + bias) * (x_scale * w_scale / y_scale)) + y_zero, in fp32."""
    b, split = c.build, _split_scales(c)
    rest = {name: c.attributes[name] for name in _CONV if name in c.attributes}
    rank = c.values.rank(c.input(0))
    if split is None or rank is None:
        inputs = [_dequantized(c, 0), _dequantized(c, 3, 0)]
        if c.input(8):
            inputs.append(b.op("Mul", b.cast(c.input(8), TensorProto.FLOAT), b.op("Mul", c.input(1), c.input(4))))
        c.give(b.op("QuantizeLinear", b.op("Conv", *inputs, **rest), c.input(6), c.input(7)))
        return True
    inputs = [
        b.op("DequantizeLinear", c.input(0), b.constant(split.left, np.float32), c.input(2)),
        b.op("DequantizeLinear", c.input(3), b.constant(split.right, np.float32), c.input(5), axis=0),
    ]
    if c.input(8):
        unit = b.constant(split.left * split.right, np.float32)
        inputs.append(b.op("Mul", b.cast(c.input(8), TensorProto.FLOAT), unit))
    by_channel = split.rest.reshape(-1, *[1] * (rank - 2)) if split.rest.ndim else split.rest
    c.give(_levels(c, b.op("Conv", *inputs, **rest), by_channel))
    return True


@dataclass(frozen=True, slots=True)
class _SplitScales:
    """The scales of a product of quantized tensors, so that the product is exact in fp32, and of ordinary size.

    Attributes:
        left: the power of two that is next to the scale of the first operand.
        right: the same for the second operand, one number or one for each of its channels.
        rest: left_scale * right_scale / result_scale, as ONNX Runtime rounds it, divided by `left` and `right`.
    """

    left: NDArray[np.float32]
    right: NDArray[np.float32]
    rest: NDArray[np.float32]


def _split_scales(c: Context) -> _SplitScales | None:
    """The scales of a QLinearMatMul or QLinearConv; None if they are not constant or of another form.

    A product of dequantized numbers is rounded, so that sums in the middle of two levels may fall to either. Powers of
    two round nothing: the result is that of whole numbers.
    """
    arrays = [c.values.constant(c.input(index)) for index in (1, 4, 6)]
    if any(each is None or not np.all((each > 0) & np.isfinite(each)) for each in arrays):
        return None
    left, right, result = (np.asarray(each, np.float32) for each in arrays)
    if left.size != 1 or result.size != 1 or right.ndim > 1:
        return None
    left, right, result = left.reshape(()), right if right.size > 1 else right.reshape(()), result.reshape(())
    nearest = [np.exp2(np.round(np.log2(each.astype(np.float64)))).astype(np.float32) for each in (left, right)]
    rest = left * right / result / nearest[0] / nearest[1]
    return _SplitScales(nearest[0], nearest[1], np.asarray(rest, np.float32)) if np.isfinite(rest).all() else None


def _levels(c: Context, product: str, factor: NDArray[np.float32]) -> str:
    """Build a product times a constant factor, quantized with the node's zero point."""
    b = c.build
    steps = b.op("Mul", product, b.constant(factor, np.float32))
    return b.op("QuantizeLinear", steps, b.constant(1, np.float32), c.input(7))


TABLE: dict[str, Decomposition] = {
    "DynamicQuantizeLinear": dynamic_quantize_linear,
    "MatMulInteger": mat_mul_integer,
    "ConvInteger": conv_integer,
    "QLinearMatMul": q_linear_mat_mul,
    "QLinearConv": q_linear_conv,
}
