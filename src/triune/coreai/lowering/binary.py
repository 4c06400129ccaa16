"""Lowering of ONNX's elementwise operators with two operands."""

from collections.abc import Callable, Mapping

from triune.coreai.library import Value, ops
from triune.coreai.lowering.values import like


def less(x: Value, y: Value) -> Value:
    """Whether x < y, element by element."""
    return ops.broadcasting_greater(y, x)


def _greater_or_equal(x: Value, y: Value) -> Value:
    # Do not negate x < y, which would give true for NaN: every comparison with NaN is false.
    return ops.or_(ops.broadcasting_greater(x, y), ops.broadcasting_equal(x, y))


def _less_or_equal(x: Value, y: Value) -> Value:
    return ops.or_(less(x, y), ops.broadcasting_equal(x, y))


def _mod(x: Value, y: Value, *, fmod: int) -> Value:
    # The result of Core AI's modulo has the sign of x, as that of ONNX's Mod with fmod=1. With fmod=0, the result must
    # have the sign of y.
    rest = ops.broadcasting_modulo(x, y)
    if fmod:
        return rest
    zero = like(x, 0)
    is_other = ops.broadcasting_xor(less(rest, zero), less(y, zero))
    is_off = ops.broadcasting_and(ops.broadcasting_not_equal(rest, zero), is_other)
    return ops.broadcasting_where(is_off, ops.broadcasting_add(rest, y), rest)


OPS: Mapping[str, Callable[..., Value]] = {
    "Mod": _mod,
    "Less": less,
    "GreaterOrEqual": _greater_or_equal,
    "LessOrEqual": _less_or_equal,
}
"""The lowering of each binary ONNX operator that is not a single operation of Core AI."""
