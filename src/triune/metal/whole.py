"""Products and convolutions of 8-bit integers, whose sums are exact in every precision.

MLX multiplies matrices of floats only. fp32 represents all integers up to 2^24, so the summed axis is split into parts
whose sums stay below that, and the parts are added in int32. Convolutions are computed by matrix products too, one for
each element of the kernel, since MLX's own algorithms (Winograd, for example) multiply by fractions.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import TensorProto, helper

from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.window import window_of
from triune.graph.exact_parts import exact_parts
from triune.metal.builder import whole_product
from triune.metal.context import Context, Lowering, builder_of
from triune.metal.conv import of_integers
from triune.metal.images import channels_first
from triune.metal.library import Value, from_numpy, mx

_LARGEST: Mapping[int, int] = {TensorProto.UINT8: 255, TensorProto.INT8: 128}
"""The largest distance of an element from 0, by type."""

_FROM_ZERO_POINT = 255
"""The largest distance of an 8-bit integer from a zero point of its type."""

_LIMITS: Mapping[int, tuple[int, int]] = {TensorProto.UINT8: (0, 255), TensorProto.INT8: (-128, 127)}


def _largest(c: Context, index: int, zero: int) -> int:
    """The largest possible distance of an operand's elements from its zero point. Raises Refusal if they are not 8-bit
    integers.
    """
    elem_type = c.scope.values.elem_type(c.node.input[index])
    if elem_type not in _LARGEST:
        raise Refusal(
            f"a product of {helper.tensor_dtype_to_string(elem_type)}, where integers of 8 bits are summed in int32"
        )
    return _FROM_ZERO_POINT if c.has(zero) else _LARGEST[elem_type]


def _shifted(c: Context, index: int, zero: int, shape: Sequence[int] | None = None) -> Value:
    """An operand minus its zero point, in int32. A zero point that is a vector is reshaped to `shape`."""
    x = c.input(index).astype(mx.int32)
    return x - _spread(c.input(zero).astype(mx.int32), shape) if c.has(zero) else x


def _spread(x: Value, shape: Sequence[int] | None) -> Value:
    """Return a single number as a scalar, and reshape a vector to `shape`, if one is given."""
    return x.reshape(()) if x.size == 1 else x if shape is None or x.ndim != 1 else x.reshape(shape)


def _product(c: Context, first: tuple[int, int], second: tuple[int, int]) -> Value:
    """The matrix product of two operands in int32. Each operand is given by the indices of the inputs for its elements
    and its zero point.
    """
    left, right = (_largest(c, *each) for each in (first, second))
    x = _shifted(c, *first, (-1, 1))
    parts = _parts(c, second, left)
    if parts is None:
        return whole_product(x, _shifted(c, *second), left * right)
    total = None
    for some, matrix in parts:
        found = mx.matmul(x[..., some].astype(mx.float32), matrix).astype(mx.int32)
        total = found if total is None else total + found
    return mx.zeros((*x.shape[:-1], c.input(second[0]).shape[-1]), dtype=mx.int32) if total is None else total


def _parts(c: Context, second: tuple[int, int], largest: int) -> list[tuple[slice, Value]] | None:
    """Split a constant matrix, minus its zero point, into parts whose sums are exact in fp32. Returns the rows and the
    fp32 elements of each part; None if the matrix is not constant. The parts are made once and kept.
    """
    kept = builder_of(c).whole
    name = c.node.output[0]
    if name not in kept:
        is_fixed = all(
            index >= len(c.node.input) or not c.node.input[index] or c.scope.tensor(c.node.input[index]) is not None
            for index in second
        )
        matrix = c.constant(second[0]) if is_fixed else None
        zero = c.constant(second[1]) if is_fixed and c.has(second[1]) else np.zeros((), np.int8)
        if matrix is None or zero is None or matrix.ndim != 2:
            return None
        whole = matrix.astype(np.int16) - (zero.reshape(()) if zero.size == 1 else zero).astype(np.int16)
        kept[name] = [(some, from_numpy(whole[some].astype(np.float32))) for some in exact_parts(whole, largest)]
        mx.eval([each for _, each in kept[name]])
    return kept[name]


def _matmul_integer(c: Context) -> None:
    c.give(_product(c, (0, 2), (1, 3)))


def _conv(c: Context, first: tuple[int, int], second: tuple[int, int]) -> Value:
    """Compute the node's convolution in int32, with channels last. `first` has the indices of the inputs with the
    image and its zero point, `second` those of the kernel and its zero point.
    """
    largest = _largest(c, *first) * _largest(c, *second)
    kernel = c.input(second[0])
    window = window_of(c.attributes, kernel.shape[2:])
    x = _shifted(c, *first)
    window.require_room(x.shape[2:])
    weights = _shifted(c, *second, (-1, *[1] * (kernel.ndim - 1)))
    multiply = functools.partial(whole_product, largest=largest)
    return of_integers(x, weights, window, int(c.attributes.get("group", 1)), multiply)


def _conv_integer(c: Context) -> None:
    c.give(channels_first(_conv(c, (0, 2), (1, 3))))


def _q_linear_matmul(c: Context) -> None:
    total = _product(c, (0, 2), (3, 5))
    left = _spread(c.input(1).astype(mx.float32), (-1, 1))
    right = _spread(c.input(4).astype(mx.float32), None)
    c.give(_levels(c, total, left * right / _spread(c.input(6).astype(mx.float32), (-1, 1)), (-1, 1)))


def _q_linear_conv(c: Context) -> None:
    total = _conv(c, (0, 2), (3, 5))
    if c.has(8):
        total = total + c.input(8)
    left, right, result = (_spread(c.input(index).astype(mx.float32), None) for index in (1, 4, 6))
    c.give(channels_first(_levels(c, total, left * right / result, None)))


def _levels(c: Context, total: Value, factor: Value, shape: Sequence[int] | None) -> Value:
    """Requantize sums: multiply them by a factor in fp32, and quantize with the node's zero point, in ONNX Runtime's
    order of operations.
    """
    elem_type = c.scope.values.elem_type(c.node.input[7]) if c.has(7) else TensorProto.UINT8
    if elem_type not in _LIMITS:
        raise Refusal(f"a result of {helper.tensor_dtype_to_string(elem_type)}; MLX quantizes to integers of 8 bits")
    found = mx.round(total.astype(mx.float32) * factor)
    if c.has(7):
        found = found + _spread(c.input(7).astype(mx.float32), shape)
    return mx.clip(found, *_LIMITS[elem_type]).astype(mx.int32).astype(builder_of(c).kind_of(elem_type))


TABLE: Mapping[str, Lowering] = {
    "MatMulInteger": _matmul_integer,
    "ConvInteger": _conv_integer,
    "QLinearMatMul": _q_linear_matmul,
    "QLinearConv": _q_linear_conv,
}
