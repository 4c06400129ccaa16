"""Lowering of ONNX's elementwise operators with two operands, and of Where."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sympy

from triune.coreml.lowering.broadcast import logical, select
from triune.coreml.lowering.context import is_bool, is_float, like
from triune.coreml.lowering.mb import Var, mb


def _of_booleans(name: str) -> Callable[[Var, Var], Var]:
    """Return a function that converts both operands to bool and writes MIL's operation `name`."""

    def write(x: Var, y: Var) -> Var:
        return getattr(mb, name)(x=logical(x), y=logical(y))

    return write


def _equal(x: Var, y: Var) -> Var:
    return mb.logical_not(x=mb.logical_xor(x=x, y=y)) if is_bool(x) else mb.equal(x=x, y=y)


def _div(x: Var, y: Var) -> Var:
    return mb.real_div(x=x, y=y) if is_float(x) else divide_integers(x, y)


def divide_integers(x: Var, y: Var) -> Var:
    """Divide integers and round the quotient toward zero, as ONNX's Div does.

    MIL's floor_div rounds down, so that -7 / 2 would be -4, not -3.
    """
    quotient = mb.floor_div(x=x, y=y)
    if _is_known_non_negative(x) and _is_known_non_negative(y):
        return quotient
    remainder = mb.sub(x=x, y=mb.mul(x=quotient, y=y))
    zero = np.int32(0)
    is_below = mb.logical_xor(x=mb.less(x=x, y=zero), y=mb.less(x=y, y=zero))
    is_off = mb.logical_and(x=mb.not_equal(x=remainder, y=zero), y=is_below)
    return mb.add(x=quotient, y=mb.cast(x=is_off, dtype="int32"))


def _is_known_non_negative(x: Var) -> bool:
    """Whether every element of `x` is at least 0 for any input, as far as can be proven: see `_is_non_negative`."""
    known: Any = x.sym_val
    if known is None:
        return False
    sizes = _size_symbols_of(x)
    return all(_is_non_negative(sizes, each) for each in np.asarray(known, object).reshape(-1).tolist())


def _size_symbols_of(x: Var) -> set[Any]:
    """Return the symbols of dimension sizes from which `x` is computed. A size is at least 0.

    coremltools also creates symbols for other unknown numbers. These are not returned, since they may be negative.
    """
    sizes: set[Any] = set()
    seen: set[int] = set()
    waiting = [x]
    while waiting:
        op = waiting.pop().op
        if op is None or id(op) in seen:
            continue
        seen.add(id(op))
        if op.op_type == "shape":
            sizes.update(symbol for dim in op.x.shape for symbol in getattr(dim, "free_symbols", ()))
            continue
        for value in op.inputs.values():
            waiting += value if isinstance(value, (list, tuple)) else [value]
    return sizes


def _is_non_negative(sizes: set[Any], value: Any) -> bool:
    """Whether `value` is an integer >= 0, or a polynomial of symbols in `sizes` all of whose coefficients are >= 0."""
    polynomial: Any = sympy.Poly
    if isinstance(value, (int, np.integer)):
        return bool(value >= 0)
    try:
        terms = polynomial(value)
        return set(terms.free_symbols) <= sizes and all(float(each) >= 0 for each in terms.coeffs())
    except (sympy.PolynomialError, TypeError):
        return False


def _mod(x: Var, y: Var, *, fmod: int) -> Var:
    if not fmod:
        # The results of MIL's mod and of ONNX's Mod with fmod=0 both have the sign of the divisor.
        return mb.mod(x=x, y=y)
    if is_float(x):
        return mb.mul(x=mb.sign(x=x), y=mb.mod(x=mb.abs(x=x), y=mb.abs(x=y)))
    return mb.sub(x=x, y=mb.mul(x=divide_integers(x, y), y=y))


def negative_from_end(indices: Var, size: Any) -> Var:
    """Add `size` to the negative elements of `indices`, which count from the end of a dimension.

    Args:
        indices: integers from -size to size - 1.
        size: the size of the dimension: an int, or a scalar of the program.
    """
    if indices.val is not None:
        known = np.asarray(indices.val)
        if bool(np.min(known, initial=0) >= 0):
            return indices
        if isinstance(size, int):
            return mb.const(val=np.where(known < 0, known + size, known).astype(np.int32)[()])
    return select(mb.less(x=indices, y=like(indices, 0)), mb.add(x=indices, y=_scalar(size)), indices)


def _scalar(size: Any) -> Any:
    return np.int32(size) if isinstance(size, int) else size


OPS: Mapping[str, Callable[..., Var]] = {
    "Div": _div,
    "Mod": _mod,
    "And": _of_booleans("logical_and"),
    "Or": _of_booleans("logical_or"),
    "Xor": _of_booleans("logical_xor"),
    "Equal": _equal,
    "Where": select,
}
"""The lowering of each binary ONNX operator that is not a single operation of MIL."""
