"""Operators of two operands, element by element, and Where."""

import numpy as np

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.values import cast, dtype_of, is_bool, is_float, like


def _same(name: str) -> Lowering:
    """An operation of the same meaning that broadcasts its operands."""

    def lower(c: Context) -> None:
        c.give(getattr(ops, name)(c.input(0), c.input(1)))

    return lower


def less(x: Value, y: Value) -> Value:
    """Is `x` less than `y`?"""
    return ops.broadcasting_greater(y, x)


def _less(c: Context) -> None:
    c.give(less(c.input(0), c.input(1)))


def _greater_or_equal(c: Context) -> None:
    # Not the contrary of "less": nothing is true of what is no number.
    x, y = c.input(0), c.input(1)
    c.give(ops.or_(ops.broadcasting_greater(x, y), ops.broadcasting_equal(x, y)))


def _less_or_equal(c: Context) -> None:
    x, y = c.input(0), c.input(1)
    c.give(ops.or_(less(x, y), ops.broadcasting_equal(x, y)))


def _mod(c: Context) -> None:
    x, y = c.input(0), c.input(1)
    # Core AI's takes the sign of the dividend.
    rest = ops.broadcasting_modulo(x, y)
    if c.attributes.get("fmod", 0):
        c.give(rest)
        return
    zero = like(x, 0)
    is_other = ops.broadcasting_xor(less(rest, zero), less(y, zero))
    is_off = ops.broadcasting_and(ops.broadcasting_not_equal(rest, zero), is_other)
    c.give(ops.broadcasting_where(is_off, ops.broadcasting_add(rest, y), rest))


def _pow(c: Context) -> None:
    x, y = c.input(0), c.input(1)
    if is_float(x) or not is_float(y):
        c.give(ops.broadcasting_pow(x, cast(y, dtype_of(x))))
        return
    c.give(cast(ops.broadcasting_pow(cast(x, dtype_of(y)), y), np.int32))


def _where(c: Context) -> None:
    c.give(ops.broadcasting_where(c.input(0), c.input(1), c.input(2)))


def _extreme(name: str, on_truth: str) -> Lowering:
    def lower(c: Context) -> None:
        if len(c.node.input) == 1:
            c.give(c.input(0))
            return
        x, y = c.input(0), c.input(1)
        c.give(getattr(ops, on_truth if is_bool(x) else name)(x, y))

    return lower


TABLE: dict[str, Lowering] = {
    "Add": _same("broadcasting_add"),
    "Sub": _same("broadcasting_sub"),
    "Mul": _same("broadcasting_mul"),
    "Div": _same("broadcasting_divide"),
    "Pow": _pow,
    "Mod": _mod,
    "Max": _extreme("broadcasting_maximum", "broadcasting_or"),
    "Min": _extreme("broadcasting_minimum", "broadcasting_and"),
    "And": _same("broadcasting_and"),
    "Or": _same("broadcasting_or"),
    "Xor": _same("broadcasting_xor"),
    "Equal": _same("broadcasting_equal"),
    "Greater": _same("broadcasting_greater"),
    "GreaterOrEqual": _greater_or_equal,
    "Less": _less,
    "LessOrEqual": _less_or_equal,
    "Where": _where,
}
