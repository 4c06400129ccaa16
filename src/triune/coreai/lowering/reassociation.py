"""Find out whether the result changes when Apple's compiler combines the constants of two operations."""

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
        numbers: its elements in fp64; None if they are not known.
        is_right: whether it is the right operand, which for a division is the divisor.
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
    """Whether combining the constants of two multiplications or divisions changes the result.

    Args:
        inner: the first operation, such as x * a.
        outer: the operation on its result, such as (x * a) / b.
        dtype: the dtype of the result.
    """
    if dtype.kind != "f":
        # Products of integers wrap around to the same number in any order; quotients are rounded.
        return "divide" in (inner.name, outer.name)
    one, other = inner.constant.numbers, outer.constant.numbers
    if one is None or other is None:
        return True
    # The result changes if a constant of fp16 is subnormal: the compiler misreads these, 3e-5 as 2e-7 for example.
    if dtype == np.float16 and not (_are_normal(one, dtype) and _are_normal(other, dtype)):
        return True
    # If one of two multiplications is by 1 or -1, combining them changes nothing, since such a product is not rounded.
    # Combining a division with a multiplication does change the result, since the division becomes a product, which
    # rounds differently.
    if _are_units(other) and (outer.name == "mul" or outer.constant.is_right) and inner.name == "mul":
        return False
    if inner.name == outer.name == "mul" and _are_units(one):
        return False
    with np.errstate(all="ignore"):
        first = 1 / one if inner.name == "divide" and inner.constant.is_right else one
        combined = first * other if outer.name == "mul" else first / other if outer.constant.is_right else other / first
    # In fp16, x * (a / b) counts as unchanged if a / b is in the range of fp16: it rounds once less than (x * a) / b,
    # and so is nearer to what fp32 gives for (x * a) / b.
    return dtype == np.float32 or not _are_normal(combined, dtype)


def changes_sums(inner: Step, outer: Step, dtype: np.dtype[Any], *, is_bias: bool) -> bool:
    """Whether combining the constants of two additions or subtractions changes the result.

    Args:
        inner: the first operation, such as x + a.
        outer: the operation on its result, such as (x + a) - b.
        dtype: the dtype of the result.
        is_bias: whether `inner` adds the bias of a convolution. Then only constants that cancel each other count, so
            that the compiler may combine the bias with a batch normalization that follows.
    """
    one, other = inner.constant.numbers, outer.constant.numbers
    # Sums of integers wrap around to the same number in any order. In fp16, x + (a - b) counts as unchanged: it rounds
    # once less than (x + a) - b, and so is nearer to what fp32 gives for (x + a) - b.
    if dtype != np.float32:
        return False
    if one is None or other is None:
        return True
    if not one.any() or not other.any():
        return False
    first = -one if inner.name == "sub" and inner.constant.is_right else one
    combined = first + other if outer.name == "add" else first - other
    is_cancelled = bool((np.abs(combined) < _CANCELLED * np.maximum(np.abs(first), np.abs(other))).any())
    return is_cancelled or not is_bias


def changes_scales(scale: Step, dtype: np.dtype[Any]) -> bool:
    """Whether multiplying a convolution's weights by a constant may exceed the range of their dtype.

    The absolute values of weights are assumed to be between 2^-6 and 2^6.

    Args:
        scale: the operation that multiplies or divides the convolution's result, by a constant for each channel.
        dtype: the dtype of the weights.
    """
    numbers = scale.constant.numbers
    if numbers is None or (scale.name == "divide" and not scale.constant.is_right):
        return False
    with np.errstate(all="ignore"):
        factors = np.abs(1 / numbers if scale.name == "divide" else numbers)
    return not _are_normal(factors * 2.0**6, dtype) or not _are_normal(factors * 2.0**-6, dtype)


def _are_units(numbers: NDArray[Any]) -> bool:
    return bool((np.abs(numbers) == 1).all())


def _are_normal(numbers: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether each number is 0, or neither subnormal nor too large in a float dtype."""
    limits = np.finfo(dtype)
    sizes = np.abs(numbers[numbers != 0])
    return bool(((sizes >= float(limits.smallest_normal)) & (sizes <= float(limits.max))).all())
