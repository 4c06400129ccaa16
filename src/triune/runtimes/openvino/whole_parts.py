"""Builds products and sums of integers in OpenVINO from parts that its CPU plugin computes exactly: see
`whole_sums`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from triune.runtimes.openvino.library import opset
from triune.runtimes.openvino.whole_ranges import Range

_BITS: Final = 8
"""The number of bits of a digit, when integers are split into digits."""

MOST_DIGIT: Final = (1 << _BITS) - 1


def size_of(output: Any, axis: int) -> int | None:
    """The size of an axis; None if it is not known."""
    shape = output.get_partial_shape()
    dim = shape[axis % shape.rank.get_length()]
    return dim.get_length() if dim.is_static else None


def numbers(*values: int) -> Any:
    """Build a constant vector of INT64."""
    return opset.constant(np.array(values, np.int64))


def int32(output: Any) -> Any:
    """Build the conversion of a value to INT32."""
    return opset.convert(output, "i32").output(0)


def digits_of(x: Any, limits: Range) -> list[tuple[Any, int, int]]:
    """Split integers into digits, the lowest first: for each, (its value, the number of bits below it, its largest
    distance from 0).

    Args:
        x: INT32.
        limits: the range of the elements. Numbers up to 255 are one digit. The last digit has the sign.
    """
    if max(map(abs, limits)) <= MOST_DIGIT:
        return [(x, 0, max(map(abs, limits)))]
    bits = max(limits[1].bit_length(), (-limits[0] - 1).bit_length() if limits[0] < 0 else 0) + (limits[0] < 0)
    mask = opset.constant(np.array(MOST_DIGIT, np.int32))
    found: list[tuple[Any, int, int]] = []
    for below in range(0, bits, _BITS):
        shifted = opset.bitwise_right_shift(x, opset.constant(np.array(below, np.int32))).output(0) if below else x
        is_last = below + _BITS >= bits
        digit = shifted if is_last else opset.bitwise_and(shifted, mask).output(0)
        found.append((digit, below, 128 if is_last and limits[0] < 0 else MOST_DIGIT))
    return found


def shifted_left(x: Any, bits: int) -> Any:
    """Shift INT32 left by `bits`, which may be 0.

    A Multiply by a power of two would not do: the plugin fuses an Add or a Multiply into the product or sum that it
    follows, and computes all in fp32. It does not fuse a shift.
    """
    return opset.bitwise_left_shift(x, opset.constant(np.array(bits, np.int32))).output(0)


def joined(sums: Sequence[tuple[Any, int]]) -> Any:
    """Build the sum of INT32 values, each shifted left by a number of bits; larger numbers wrap around."""
    total = None
    for value, shift in sums:
        shifted = shifted_left(value, shift)
        total = shifted if total is None else opset.add(total, shifted).output(0)
    return total


def part_of(x: Any, axis: int, some: slice) -> Any:
    """Build the slice of `x` along `axis` from `some.start` to `some.stop`."""
    return opset.slice(x, numbers(some.start), numbers(some.stop), numbers(1), numbers(axis)).output(0)


def product_of_parts(a: Any, b: Any, parts: Sequence[slice], flags: Mapping[str, Any]) -> Any:
    """Build a MatMul of two INT32 values as the sum of MatMuls, one for each slice `parts` of the axis that is
    summed.
    """
    is_vector = [x.get_partial_shape().rank.get_length() == 1 for x in (a, b)]
    axis_a = -2 if flags["transpose_a"] and not is_vector[0] else -1
    axis_b = -1 if flags["transpose_b"] or is_vector[1] else -2
    pieces = [
        opset.matmul(part_of(a, axis_a, some), part_of(b, axis_b, some), flags["transpose_a"], flags["transpose_b"])
        for some in parts
    ]
    return joined([(piece.output(0), 0) for piece in pieces])


def transposed(x: Any, lift: int) -> Any:
    """Build the exchange of the last two axes or, if `lift` is 1, of the two axes before the last one."""
    order = list(range(x.get_partial_shape().rank.get_length()))
    at = len(order) - 2 - lift
    order[at], order[at + 1] = order[at + 1], order[at]
    return opset.transpose(x, numbers(*order)).output(0)


def in_parts(x: Any, step: int) -> Any:
    """Build [..., parts, rows, step] from [..., rows, terms], with zeros after the last term."""
    rank = x.get_partial_shape().rank.get_length()
    shape = opset.shape_of(x, "i64")
    terms = opset.gather(shape, numbers(rank - 1), opset.constant(np.array(0, np.int64)))
    up = opset.divide(opset.add(terms, numbers(step - 1)), numbers(step))
    ends = opset.concat([numbers(*[0] * (rank - 1)), opset.subtract(opset.multiply(up, numbers(step)), terms)], 0)
    zero = opset.constant(np.array(0, np.int32))
    padded = opset.pad(x, numbers(*[0] * rank), ends, "constant", zero)
    # In the target shape of a Reshape, 0 keeps the size of the dimension.
    split = opset.reshape(padded, opset.concat([numbers(*[0] * (rank - 1)), up, numbers(step)], 0), True).output(0)
    return transposed(split, 1)


def sum_over(x: Any, axis: int) -> Any:
    """Build the sum of INT32 values over an axis, which is removed: the last element of CumSum, or 0 if the axis is
    empty. The plugin computes CumSum in 32 bits.
    """
    rank = x.get_partial_shape().rank.get_length()
    at = axis % rank
    if not size_of(x, axis):
        begins = numbers(*(int(each == at) for each in range(rank)))
        x = opset.pad(x, begins, numbers(*[0] * rank), "constant", opset.constant(np.array(0, np.int32))).output(0)
    running = opset.cum_sum(x, opset.constant(np.array(at, np.int64)))
    return opset.gather(running, opset.constant(np.array(-1, np.int64)), opset.constant(np.array(at, np.int64))).output(
        0
    )
