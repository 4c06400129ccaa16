"""Sums of products of 8-bit integers that may exceed 2**24, beyond which fp32 does not hold all integers: one operand
is split into digits.
"""

import math
from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, TensorProto

from triune.graph.builder import Builder
from triune.graph.decompose.context import Context
from triune.graph.exact_parts import MOST_EXACT
from triune.graph.values import names_read_by

_LARGEST = 255
"""The largest difference of an 8-bit integer and a zero point."""

_UNKNOWN = 32_768
"""The assumed number of products in a sum, if it is not known at conversion time. If one operand is split into digits
of one bit, sums of so many products are exact in fp32.
"""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_HAND_ON = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that only pass a sum on, so that a Cast to float may still follow: `become_floats` looks behind them, and
behind an Add or Sub of a small constant.
"""

_DEEPEST = 4
"""The most nodes in a row at which `become_floats` looks, the Cast to float included."""


def largest_sum(c: Context, axes: Sequence[int], weight: int, point: int) -> int:
    """The largest sum of |w - zero point| over the axes `axes` of w. `weight` and `point` are the positions of w and of
    its zero point among the node's inputs.
    """
    weights = c.values.constant(c.input(weight))
    points = c.values.constant(c.input(point)) if c.input(point) else np.zeros((), np.int16)
    if weights is not None and points is not None and weights.ndim >= len(axes):
        points = points.astype(np.int16)
        if points.ndim == 1 and points.size > 1:
            # Align the zero points: there is one for each column of a matrix, or for each channel of a kernel.
            points = points if axes == (-2,) else points.reshape(-1, *[1] * (weights.ndim - 1))
        used = tuple(axes) if weights.ndim > 1 else None
        return int(np.abs(weights.astype(np.int16) - points).sum(axis=used, dtype=np.int64).max(initial=0))
    shape = c.values.shape(c.input(weight)) or ()
    sizes = [shape[axis] if -len(shape) <= axis < len(shape) else None for axis in axes]
    known = [size for size in sizes if size is not None]
    return _LARGEST * (math.prod(known) if len(known) == len(sizes) else max(_UNKNOWN, math.prod(known)))


def num_bits(largest: int, added: int = 0) -> int | None:
    """The number of bits of a digit with which sums are exact in fp32; None if sums are exact without digits.

    Args:
        largest: the largest sum (`largest_sum`) of the operand that is not split into digits.
        added: the largest number that is added to a sum.
    """
    if _LARGEST * largest + added <= MOST_EXACT:
        return None
    return next((bits for bits in (4, 2) if (1 << bits) * largest <= MOST_EXACT), 1)


def become_floats(c: Context, name: str, depth: int = _DEEPEST) -> bool:
    """Whether every node that reads a value converts it to floats, so that 24 bits of the value are enough."""
    if not depth or any(value.name == name for value in c.graph.output):
        return False
    for node in c.graph.node:
        if name not in names_read_by(node):
            continue
        kinds = [each.i for each in node.attribute if each.name == "to"]
        is_float = node.op_type == "Cast" and kinds[0] in _FLOATS
        is_handed_on = node.op_type in _HAND_ON or _adds_little(c, node, name)
        if not is_float and not (is_handed_on and become_floats(c, node.output[0], depth - 1)):
            return False
    return True


def _adds_little(c: Context, node: NodeProto, name: str) -> bool:
    """Whether a node adds a constant to a sum, and fp32 holds the constant exactly. A difference of two sums does not
    count: if both are large, little more than their errors may be left.
    """
    if node.op_type not in ("Add", "Sub"):
        return False
    others = [c.values.constant(each) for each in node.input if each != name]
    return len(others) == 1 and others[0] is not None and bool(np.abs(others[0]).max(initial=0) <= MOST_EXACT)


def digits_of(b: Builder, x: str, bits: int) -> list[str]:
    """Build the digits, of `bits` bits each, of whole numbers from -255 to 255: fp32 tensors, the lowest digit first.
    The highest digit has the sign of the number.
    """
    base = 1 << bits
    found: list[str] = []
    for _ in range(8 // bits - 1):
        rest = b.op("Floor", b.op("Mul", x, b.constant(1 / base, np.float32)))
        found.append(b.op("Sub", x, b.op("Mul", rest, b.constant(base, np.float32))))
        x = rest
    return [*found, x]


def of_digits(b: Builder, digits: Sequence[str], bits: int) -> str:
    """Build the int32 numbers sum over i of digits[i] * 2^(bits * i). A digit may be larger than 2^bits."""
    total = digits[-1]
    for digit in reversed(digits[:-1]):
        total = b.op("Add", b.op("Mul", total, b.constant(1 << bits, np.int32)), digit)
    return total
