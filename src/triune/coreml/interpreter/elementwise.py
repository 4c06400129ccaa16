"""Elementwise operations: unary, binary, select, cast."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreml.interpreter.values import Compute, Family
from triune.coreml.mil import Array, DType


def erf(x: Array) -> Array:
    """Compute the Gauss error function."""
    return np.asarray(_erf(x.astype(np.float64)), x.dtype)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def identity(x: Array) -> Array:
    """Return x."""
    return x


def threshold(x: Array, alpha: Array) -> Array:
    """Compute max(x, alpha)."""
    return np.maximum(x, alpha)


def real_div(x: Array, y: Array) -> Array:
    """Compute x / y. Integer quotients are rounded toward zero, since Core ML stores them in the type of x."""
    quotient = x / y
    return quotient.astype(x.dtype) if x.dtype.kind in "iu" else quotient


def exp2(x: Array) -> Array:
    """Compute 2^x. For integers a fraction is rounded toward zero."""
    return np.exp2(x).astype(x.dtype)


def power(x: Array, y: Array) -> Array:
    """Compute x^y. Integer results wrap around; integers to negative powers are rounded toward zero."""
    if x.dtype.kind not in "iu" or (y.dtype.kind in "iu" and bool(np.all(y >= 0))):
        # For a scalar exponent of 0.5 numpy computes sqrt, and sqrt(-inf) is NaN, but IEEE 754 has (-inf)^0.5 = inf. So
        # the exponent is made an array.
        return np.power(x, np.array(np.broadcast_to(y, np.broadcast_shapes(x.shape, y.shape))))
    return np.trunc(np.power(x.astype(np.float64), y)).astype(x.dtype)


def log(x: Array, epsilon: Any) -> Array:
    """Compute the natural logarithm of x + epsilon."""
    return np.log(x + x.dtype.type(epsilon))


def inverse(x: Array, epsilon: Any) -> Array:
    """Compute 1 / (x + epsilon)."""
    return 1 / (x + x.dtype.type(epsilon))


def rsqrt(x: Array, epsilon: Any) -> Array:
    """Compute 1 / sqrt(x + epsilon)."""
    return 1 / np.sqrt(x + x.dtype.type(epsilon))


def clip(x: Array, alpha: Array, beta: Array) -> Array:
    """Compute min(max(x, alpha), beta)."""
    return np.minimum(np.maximum(x, alpha), beta)


# Names of element types in Python and numpy, which coremltools' front ends write beside MIL's.
_SPELLINGS: Mapping[str, str] = {
    "double": "fp64",
    "float": "fp32",
    "float16": "fp16",
    "float32": "fp32",
    "float64": "fp64",
    "int": "int32",
}


def cast(x: Array, dtype: str) -> Array:
    """Cast x. Floats are rounded toward zero to integers, and become bool by x != 0."""
    try:
        target = DType(_SPELLINGS.get(dtype, dtype))
    except ValueError as error:
        raise UnsupportedError(f"'{dtype}' is not an element type") from error
    if target is DType.STRING or x.dtype == object:
        raise UnsupportedError(f"text cannot be cast: {x.dtype} to {dtype}")
    if target.numpy.kind == "u" and x.dtype.kind == "f":
        # Cast through int64: in C, casting a negative float directly to an unsigned integer is undefined.
        return np.trunc(x).astype(np.int64).astype(target.numpy)
    return x.astype(target.numpy)


def select(cond: Array, a: Array, b: Array) -> Array:
    """Take a where `cond` is true, else b."""
    return np.where(cond, a, b)


def unary(function: Callable[[Array], Any]) -> Compute:
    """Make an operation with the single parameter `x`."""

    def compute(x: Array) -> Any:
        return function(x)

    return compute


def _binary(function: Callable[[Array, Array], Any]) -> Compute:
    def compute(x: Array, y: Array) -> Any:
        return function(x, y)

    return compute


_UNARY: Mapping[str, Callable[[Array], Any]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "exp": np.exp,
    "floor": np.floor,
    "logical_not": np.logical_not,
    # Numbers halfway between two integers are rounded to the even one.
    "round": np.rint,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "tan": np.tan,
    "tanh": np.tanh,
}
_BINARY: Mapping[str, Callable[[Array, Array], Any]] = {
    "add": np.add,
    "equal": np.equal,
    # The quotient is rounded down.
    "floor_div": np.floor_divide,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "maximum": np.maximum,
    "minimum": np.minimum,
    # The result has the sign of the divisor.
    "mod": np.mod,
    "mul": np.multiply,
    "not_equal": np.not_equal,
    "sub": np.subtract,
}

FAMILY: Family = {
    **{name: unary(function) for name, function in _UNARY.items()},
    **{name: _binary(function) for name, function in _BINARY.items()},
    "cast": cast,
    "clip": clip,
    "erf": erf,
    "exp2": exp2,
    "identity": identity,
    "inverse": inverse,
    "log": log,
    "pow": power,
    "real_div": real_div,
    "rsqrt": rsqrt,
    "select": select,
    "threshold": threshold,
}
