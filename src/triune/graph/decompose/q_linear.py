"""QLinearMatMul and QLinearConv: products of quantized tensors whose results are quantized again."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.decompose.integers import CONV, minus_zero_point, weight_minus_zero_point, whole_sum
from triune.graph.decompose.whole_sums import largest_sum, num_bits

_SCALES = (1, 4, 6)
"""The positions of the scales of both operands and of the result. Each zero point is at the next position."""


def q_linear_mat_mul(c: Context) -> bool:
    """QLinearMatMul: round((A - a) @ (B - b) * (a_scale * b_scale / y_scale)) + y_zero.

    A has one scale and zero point, or one for each row. B has one scale and zero point, or one for each column.
    """
    b, rank = c.build, c.values.rank(c.input(0))
    bits = _num_bits(c, (-2,), 0)
    split = None if bits else _split_scales(c)
    if split is not None:
        left = b.op("DequantizeLinear", c.input(0), b.constant(split.left, np.float32), c.input(2))
        right = _dequantized_weights(c, split, -1)
        c.give(_levels(c, b.op("MatMul", left, right), b.constant(split.rest, np.float32)))
        return True
    if rank is None:
        return False
    rows = minus_zero_point(c, c.input(0), c.input(2), rank - 2 if rank > 1 else None)
    columns = weight_minus_zero_point(c, c.input(3), c.input(5), -1)
    total = whole_sum(b, rows, bits, lambda x: b.op("MatMul", x, columns))
    c.give(_levels(c, b.cast(total, TensorProto.FLOAT), _factor(c, [-1, 1], None)))
    return True


def q_linear_conv(c: Context) -> bool:
    """QLinearConv: round((conv(x - x_zero, w - w_zero) + bias) * (x_scale * w_scale / y_scale)) + y_zero.

    The scale and the zero point of w are one number or one for each channel of the result.
    """
    b, rank = c.build, c.values.rank(c.input(0))
    rest = {name: c.attributes[name] for name in CONV if name in c.attributes}
    if rank is None:
        return False
    bias = c.values.constant(c.input(8)) if c.input(8) else np.zeros(1, np.int32)
    added = 0 if bias is None else int(np.abs(bias.astype(np.int64)).max(initial=0))
    bits = _num_bits(c, tuple(range(1, rank)), added)
    split = None if bits else _split_scales(c)
    if split is not None:
        left = b.op("DequantizeLinear", c.input(0), b.constant(split.left, np.float32), c.input(2))
        inputs = [left, _dequantized_weights(c, split, 0)]
        if c.input(8):
            unit = b.constant(split.left * split.right, np.float32)
            inputs.append(b.op("Mul", b.cast(c.input(8), TensorProto.FLOAT), unit))
        factor = split.rest.reshape(-1, *[1] * (rank - 2)) if split.rest.ndim else split.rest
        c.give(_levels(c, b.op("Conv", *inputs, **rest), b.constant(factor, np.float32)))
        return True
    kernel = weight_minus_zero_point(c, c.input(3), c.input(5), 0)
    image = minus_zero_point(c, c.input(0), c.input(2))
    total = whole_sum(b, image, bits, lambda x: b.op("Conv", x, kernel, **rest))
    by_channel = [-1, *[1] * (rank - 2)]
    if c.input(8):
        total = b.op("Add", total, b.op("Reshape", c.input(8), b.ints(*by_channel)))
    c.give(_levels(c, b.cast(total, TensorProto.FLOAT), _factor(c, None, by_channel)))
    return True


def _num_bits(c: Context, axes: tuple[int, ...], added: int) -> int | None:
    """The number of bits of the digits into which the first operand must be split, so that the sums of products are
    exact in fp32; None if it need not be split.

    It is not split if the weights are not constant, although sums may then be beyond 2^24. That is rare, since most of
    the products cancel, only ties of two levels depend on the last bits, and digits would take twice the time.
    """
    if c.values.constant(c.input(3)) is None:
        return None
    return num_bits(largest_sum(c, axes, 3, 5), added)


@dataclass(frozen=True, slots=True)
class _SplitScales:
    """The scales of a product of quantized tensors, divided into powers of two, which fp32 multiplies exactly, and a
    remaining factor.

    Attributes:
        left: the power of two that is next to the scale of the first operand.
        right: the same for the second operand, one number or one for each of its channels.
        rest: left_scale * right_scale / result_scale, as ONNX Runtime rounds it, divided by `left` and `right`.
    """

    left: NDArray[np.float32]
    right: NDArray[np.float32]
    rest: NDArray[np.float32]


def _split_scales(c: Context) -> _SplitScales | None:
    """Split the scales of the node into a power of two for each operand, and the remaining factor; None if the scales
    are not constant, or if the first operand has a scale for each row.

    Operands that are dequantized by powers of two have exact products. With other scales products are rounded in fp32,
    so that a sum halfway between two levels of the result may be rounded to the wrong one.
    """
    arrays = [c.values.constant(c.input(index)) for index in _SCALES]
    if any(each is None or not np.all((each > 0) & np.isfinite(each)) for each in arrays):
        return None
    left, right, result = (np.asarray(each, np.float32) for each in arrays)
    points = c.values.static_shape(c.input(5)) if c.input(5) else ()
    if left.size != 1 or result.size != 1 or right.ndim > 1 or points is None or len(points) > 1:
        return None
    if _size(c, 2) != 1:
        return None
    left, right, result = left.reshape(()), right if right.size > 1 else right.reshape(()), result.reshape(())
    nearest = [np.exp2(np.round(np.log2(each.astype(np.float64)))).astype(np.float32) for each in (left, right)]
    rest = left * right / result / nearest[0] / nearest[1]
    return _SplitScales(nearest[0], nearest[1], np.asarray(rest, np.float32)) if np.isfinite(rest).all() else None


def _size(c: Context, index: int) -> int | None:
    """The number of elements of an operand; 1 if it is left out, None if it is not known."""
    shape = c.values.static_shape(c.input(index)) if c.input(index) else ()
    return None if shape is None else int(np.prod(shape))


def _dequantized_weights(c: Context, split: _SplitScales, axis: int) -> str:
    """Build the second operand, dequantized with the powers of two `split.right` as scales. Where only one of scale and
    zero point is a vector, the other is repeated to its length.
    """
    b, scale, zero = c.build, split.right, c.input(5)
    num_scales, num_points = scale.size, _size(c, 5)
    if zero and num_scales > 1 and num_points == 1:
        zero = b.op("Expand", b.op("Reshape", zero, b.ints(1)), b.ints(num_scales))
    elif zero and num_scales == 1 and num_points not in (1, None):
        scale = np.full(num_points, scale, np.float32)
    elif zero and num_scales == num_points == 1:
        zero = b.op("Reshape", zero, b.constant([], np.int64))
    return b.op("DequantizeLinear", c.input(3), b.constant(scale, np.float32), zero, axis=axis)


def _factor(c: Context, of_left: list[int] | None, of_right: list[int] | None) -> str:
    """Build left_scale * right_scale / result_scale. A vector of scales is reshaped by `of_left` or `of_right`, if
    given.
    """
    b = c.build
    scales: list[str] = []
    for index, form in zip(_SCALES, (of_left, of_right, None), strict=True):
        name = b.cast(c.input(index), TensorProto.FLOAT)
        is_vector = c.values.rank(c.input(index)) == 1 and _size(c, index) != 1
        scales.append(b.op("Reshape", name, b.ints(*form)) if is_vector and form else name)
    return b.op("Div", b.op("Mul", scales[0], scales[1]), scales[2])


def _levels(c: Context, product: str, factor: str) -> str:
    """Build a product times a factor, quantized with the node's zero point.

    Raises:
        Refusal: the result has a scale for each row.
    """
    b = c.build
    if _size(c, 6) not in (1, None) or _size(c, 7) not in (1, None):
        raise Refusal("its result has a scale for each row; give it one scale")
    return b.op("QuantizeLinear", b.op("Mul", product, factor), b.constant(1, np.float32), c.input(7))


TABLE: dict[str, Decomposition] = {"QLinearMatMul": q_linear_mat_mul, "QLinearConv": q_linear_conv}
