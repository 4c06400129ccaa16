"""Interval arithmetic: the lowest and highest results of operators, from those of their operands."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

Interval: TypeAlias = tuple[float, float]
"""The lowest and the highest value that an element may have."""

ANY: Interval = (-math.inf, math.inf)


def magnitude(interval: Interval) -> float:
    """The largest absolute value in an interval."""
    return max(abs(interval[0]), abs(interval[1]))


def ceil(value: float) -> float:
    """Round up to an integer; infinity stays infinite."""
    return math.ceil(value) if math.isfinite(value) else value


def _product(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def union(intervals: Sequence[Interval]) -> Interval:
    """The smallest interval that contains all given ones."""
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def summed(interval: Interval, count: float) -> Interval:
    """The interval of the sum of `count` elements, each of which lies in `interval`."""
    return _product(interval[0], count), _product(interval[1], count)


def multiplied(interval: Interval, count: float) -> Interval:
    """An interval that contains the product of `count` elements, each of which lies in `interval`."""
    size = magnitude(interval)
    if size > 1:
        size = exact_power(size, count)
    return (0.0 if interval[0] >= 0 else -size), size


def remainder(dividend: Interval, divisor: Interval, *, is_fmod: bool) -> Interval:
    """The interval of a remainder.

    In ONNX's Mod the remainder has the divisor's sign. With `fmod` it has the dividend's sign, and its absolute value
    is at most the dividend's.
    """
    size = magnitude(divisor)
    if is_fmod:
        size = min(size, magnitude(dividend))
        return (0.0 if dividend[0] >= 0 else -size), (0.0 if dividend[1] <= 0 else size)
    return (0.0 if divisor[0] >= 0 else -size), (0.0 if divisor[1] <= 0 else size)


def even_power(interval: Interval, power: float) -> Interval:
    """The interval of x^power for an even power, where x lies in `interval`."""
    low, high = interval
    ends = [exact_power(abs(low), power), exact_power(abs(high), power)]
    return (0.0 if low <= 0 <= high else min(ends)), max(ends)


def exact_power(base: float, power: float) -> float:
    """base^power; infinite where a float cannot represent it."""
    try:
        return base**power
    except OverflowError:
        return math.inf


def _sqrt(interval: Interval) -> Interval:
    return math.sqrt(max(interval[0], 0.0)), math.sqrt(max(interval[1], 0.0))


def _exp(value: float) -> float:
    return math.inf if value > 700 else math.exp(value)


def _log(value: float) -> float:
    return -math.inf if value <= 0 else math.log(value)


def _absolute(interval: Interval) -> Interval:
    low, high = interval
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _add(a: Interval, b: Interval) -> Interval:
    low, high = a[0] + b[0], a[1] + b[1]
    return (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)


def _subtract(a: Interval, b: Interval) -> Interval:
    return _add(a, (-b[1], -b[0]))


def _multiply(a: Interval, b: Interval) -> Interval:
    ends = [_product(x, y) for x in a for y in b]
    return min(ends), max(ends)


def _divide(a: Interval, b: Interval) -> Interval:
    if b[0] <= 0 <= b[1]:
        # 0 lies in b, so the quotient has no upper limit. It is at least 0 if both operands are.
        return (0.0, math.inf) if a[0] >= 0 and b[0] >= 0 else ANY
    return _multiply(a, (1 / b[1], 1 / b[0]))


UNARY: Mapping[str, Callable[[Interval], Interval]] = {
    "Abs": _absolute,
    "Neg": lambda x: (-x[1], -x[0]),
    "Relu": lambda x: (max(x[0], 0.0), max(x[1], 0.0)),
    "Exp": lambda x: (_exp(x[0]), _exp(x[1])),
    "Log": lambda x: (_log(x[0]), _log(x[1])),
    "Sqrt": _sqrt,
    "Softplus": lambda x: (0.0, x[1] + 0.7 if x[1] > 0 else 0.7),
    "LeakyRelu": lambda x: (min(x[0], 0.0), max(x[1], 0.0)),
    "Elu": lambda x: (min(x[0], 0.0), max(x[1], 0.0)),
    "Gelu": lambda x: (-0.2, max(x[1], 0.0)),
    "Reciprocal": lambda x: _divide((1.0, 1.0), x),
}

BINARY: Mapping[str, Callable[[Interval, Interval], Interval]] = {
    "Add": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
}
