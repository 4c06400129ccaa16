"""What Apple's compiler makes of two constants that are added or multiplied one after the other, and what that changes.

Core AI (1.0.0b3) has one operation of two: `(x * a) / b` becomes `x * (a / b)`. Of real numbers that is the same.
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
        is_right: is it the right one: the divisor, or what is subtracted?
    """

    numbers: NDArray[Any] | None
    is_right: bool


@dataclass(frozen=True, slots=True)
class Step:
    """An operation of two operands, one of which is constant.

    Attributes:
        name: `add`, `sub`, `mul` or `divide`.
        constant: that operand.
    """

    name: str
    constant: Operand


def changes_products(inner: Step, outer: Step, dtype: np.dtype[Any]) -> bool:
    """Does it change numbers when the factors of two products or quotients are joined?

    Args:
        inner: the first.
        outer: what follows it.
        dtype: of the numbers.
    """
    if dtype.kind != "f":
        # Products wrap in any order; quotients are rounded.
        return "divide" in (inner.name, outer.name)
    one, other = inner.constant.numbers, outer.constant.numbers
    if one is None or other is None:
        return True
    # The compiler misreads factors of fp16 below its normal numbers: 3e-5 as 2e-7.
    if dtype == np.float16 and not (_fits(one, dtype) and _fits(other, dtype)):
        return True
    # By 1 and -1 nothing is rounded, unless a quotient becomes a product with what is not.
    if _are_units(other) and (outer.name == "mul" or outer.constant.is_right) and inner.name == "mul":
        return False
    if inner.name == outer.name == "mul" and _are_units(one):
        return False
    with np.errstate(all="ignore"):
        first = 1 / one if inner.name == "divide" and inner.constant.is_right else one
        joined = first * other if outer.name == "mul" else first / other if outer.constant.is_right else other / first
    # fp16 stands for fp32, to which one factor is nearer than two that are rounded one after the other.
    return dtype == np.float32 or not _fits(joined, dtype)


def changes_sums(inner: Step, outer: Step, dtype: np.dtype[Any], *, is_bias: bool) -> bool:
    """Does it change numbers when the addends of two sums or differences are joined?

    Args:
        inner: the first.
        outer: what follows it.
        dtype: of the numbers.
        is_bias: is the first addend the bias of a convolution? Then only what cancels counts: normalizations of
            batches follow, whose addends are for the compiler to join.
    """
    one, other = inner.constant.numbers, outer.constant.numbers
    # Whole numbers wrap in any order, and fp16 stands for fp32, to which the joined sum is nearer.
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
    """Do a convolution's weights leave the range of their type when they are multiplied by a scale of its channels?

    Weights are taken to be within 2^-6 and 2^6, or nearly so.

    Args:
        scale: what multiplies or divides the convolution.
        dtype: of the weights.
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
    """Are they 0, or held by a float type with all of its digits?"""
    limits = np.finfo(dtype)
    sizes = np.abs(numbers[numbers != 0])
    return bool(((sizes >= float(limits.smallest_normal)) & (sizes <= float(limits.max))).all())
