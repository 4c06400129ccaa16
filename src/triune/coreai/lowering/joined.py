"""Whether results change when Apple's compiler joins two operations with constants into one.

Core AI (1.0.0b3) rewrites `(x * a) / b` as `x * (a / b)`. For real numbers both are equal; in floats and integers they
may differ.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CANCELLED = 1 / 16
"""Two constants cancel if their sum is below this fraction of the larger one: rounding then matters."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A constant operand.

    Attributes:
        numbers: its values in fp64; None where they are not known.
        is_right: whether it is the right operand: the divisor, or the subtrahend.
    """

    numbers: NDArray[Any] | None
    is_right: bool


@dataclass(frozen=True, slots=True)
class Step:
    """A binary operation, one operand of which is constant.

    Attributes:
        name: `add`, `sub`, `mul` or `divide`.
        constant: the constant operand.
    """

    name: str
    constant: Operand


def changes_products(inner: Step, outer: Step, dtype: np.dtype[Any]) -> bool:
    """Whether joining the factors of two products or quotients changes the result.

    Args:
        inner: the first operation.
        outer: the operation on its result.
        dtype: the dtype of the result.
    """
    if dtype.kind != "f":
        # Integer products wrap around the same in any order; integer quotients are rounded.
        return "divide" in (inner.name, outer.name)
    one, other = inner.constant.numbers, outer.constant.numbers
    if one is None or other is None:
        return True
    # The compiler misreads subnormal factors of fp16: 3e-5 as 2e-7.
    if dtype == np.float16 and not (_fits(one, dtype) and _fits(other, dtype)):
        return True
    # Factors of 1 and -1 round nothing, unless a quotient becomes a product with another factor.
    if _are_units(other) and (outer.name == "mul" or outer.constant.is_right) and inner.name == "mul":
        return False
    if inner.name == outer.name == "mul" and _are_units(one):
        return False
    with np.errstate(all="ignore"):
        first = 1 / one if inner.name == "divide" and inner.constant.is_right else one
        joined = first * other if outer.name == "mul" else first / other if outer.constant.is_right else other / first
    # A model in fp16 approximates one in fp32: one rounded factor is nearer to that than two.
    return dtype == np.float32 or not _fits(joined, dtype)


def changes_sums(inner: Step, outer: Step, dtype: np.dtype[Any], *, is_bias: bool) -> bool:
    """Whether joining the addends of two sums or differences changes the result.

    Args:
        inner: the first operation.
        outer: the operation on its result.
        dtype: the dtype of the result.
        is_bias: whether the first addend is the bias of a convolution. If so, only cancellation counts, so that the
            compiler may join the bias with the addends of a batch normalization that follows.
    """
    one, other = inner.constant.numbers, outer.constant.numbers
    # Integer sums wrap around the same in any order. A model in fp16 approximates fp32: the joined sum is nearer.
    if dtype != np.float32:
        return False
    if one is None or other is None:
        return True
    if not one.any() or not other.any():
        return False
    first = -one if inner.name == "sub" and inner.constant.is_right else one
    joined = first + other if outer.name == "add" else first - other
    is_cancelled = bool((np.abs(joined) < _CANCELLED * np.maximum(np.abs(first), np.abs(other))).any())
    return is_cancelled or not is_bias


def changes_scales(scale: Step, dtype: np.dtype[Any]) -> bool:
    """Whether a convolution's weights leave the range of their dtype when multiplied by a scale per channel.

    The absolute values of weights are assumed to lie between 2^-6 and 2^6.

    Args:
        scale: the operation that multiplies or divides the convolution's result.
        dtype: the dtype of the weights.
    """
    numbers = scale.constant.numbers
    if numbers is None or (scale.name == "divide" and not scale.constant.is_right):
        return False
    with np.errstate(all="ignore"):
        factors = np.abs(1 / numbers if scale.name == "divide" else numbers)
    return not _fits(factors * 2.0**6, dtype) or not _fits(factors * 2.0**-6, dtype)


def _are_units(numbers: NDArray[Any]) -> bool:
    return bool((np.abs(numbers) == 1).all())


def _fits(numbers: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether each number is 0 or has a size in the normal range of a float dtype."""
    limits = np.finfo(dtype)
    sizes = np.abs(numbers[numbers != 0])
    return bool(((sizes >= float(limits.smallest_normal)) & (sizes <= float(limits.max))).all())
