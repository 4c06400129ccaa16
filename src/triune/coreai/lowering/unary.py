"""Lowering of ONNX's elementwise operators with one operand, and of Softmax."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.values import constant, dtype_of, int32, is_float, like, rank_of
from triune.graph.axes import positive


def floor(x: Value) -> Value:
    """Round down to an integer; `x` must be finite."""
    return ops.broadcasting_floor_divide(x, like(x, 1)) if is_float(x) else x


def _floor(x: Value) -> Value:
    """Round down to an integer. For infinities, Apple's floor division would return NaN."""
    if not is_float(x):
        return x
    # A float of at least 2^nmant, where nmant is the number of bits of the mantissa, has no fraction, and stays.
    bound = like(x, 2.0 ** np.finfo(dtype_of(x)).nmant)
    return ops.broadcasting_where(ops.broadcasting_greater(bound, ops.abs_(x)), floor(x), x)


def negative(x: Value) -> Value:
    """Write -x."""
    return ops.broadcasting_mul(x, like(x, -1))


def reciprocal(x: Value) -> Value:
    """Write 1 / x."""
    return ops.broadcasting_divide(like(x, 1), x)


def ceil(x: Value) -> Value:
    """Round up to an integer; `x` must be finite."""
    return negative(floor(negative(x)))


def _ceil(x: Value) -> Value:
    return negative(_floor(negative(x)))


def _sign(x: Value) -> Value:
    # For 0, -0 and NaN the result is the operand itself.
    zero = like(x, 0)
    below = ops.broadcasting_where(ops.broadcasting_greater(zero, x), like(x, -1), x)
    return ops.broadcasting_where(ops.broadcasting_greater(x, zero), like(x, 1), below)


def softplus(x: Value) -> Value:
    """Write log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)): exp(-|x|) does not overflow, as exp(x) does."""
    e = ops.exp(negative(ops.abs_(x)))
    rest = ops.log(ops.broadcasting_add(e, like(x, 1)))
    # For small e, 1 + e loses most digits of e. There log(1 + e) = e (1 + e (-1/2 + e (1/3 - e/4))), with error e^5/5.
    series = ops.broadcasting_mul(e, like(x, -1 / 4))
    for term in (1 / 3, -1 / 2, 1):
        series = ops.broadcasting_mul(e, ops.broadcasting_add(series, like(x, term)))
    return ops.add(ops.relu(x), ops.broadcasting_where(ops.broadcasting_greater(like(x, 2**-6), e), series, rest))


def softsign(x: Value) -> Value:
    """Write x / (1 + |x|)."""
    return ops.divide(x, ops.broadcasting_add(ops.abs_(x), like(x, 1)))


def _leaky_relu(x: Value, alpha: float) -> Value:
    return _where_negative(x, ops.broadcasting_mul(x, like(x, alpha)))


def _elu(x: Value, alpha: float) -> Value:
    # Limit x to 0 first: exp(x) is not used for x > 0, where it may be infinite.
    below = ops.broadcasting_minimum(x, like(x, 0))
    return _where_negative(x, ops.broadcasting_mul(_exp_minus_one(below), like(x, alpha)))


def _exp_minus_one(x: Value) -> Value:
    """Write exp(x) - 1.

    For small |x|, where the subtraction would lose most digits, write x (1 + x (1/2 + x (1/6 + x/24))), whose error is
    x^5/120.
    """
    series = ops.broadcasting_mul(x, like(x, 1 / 24))
    for term in (1 / 6, 1 / 2, 1):
        series = ops.broadcasting_mul(x, ops.broadcasting_add(series, like(x, term)))
    rest = ops.broadcasting_sub(ops.exp(x), like(x, 1))
    return ops.broadcasting_where(ops.broadcasting_greater(like(x, 2**-4), ops.abs_(x)), series, rest)


def _where_negative(x: Value, below: Value) -> Value:
    """Write `below` where x < 0, else x."""
    return ops.broadcasting_where(ops.broadcasting_greater(like(x, 0), x), below, x)


def _hard_sigmoid(x: Value, alpha: float, beta: float) -> Value:
    line = ops.broadcasting_add(ops.broadcasting_mul(x, like(x, alpha)), like(x, beta))
    return ops.broadcasting_minimum(ops.relu(line), like(x, 1))


def _gelu(x: Value, approximate: str) -> Value:
    if approximate == "none":
        return ops.gelu(x)
    cube = ops.mul(ops.mul(x, x), x)
    inner = ops.add(x, ops.broadcasting_mul(cube, like(x, 0.044715)))
    tanh = ops.tanh(ops.broadcasting_mul(inner, like(x, math.sqrt(2 / math.pi))))
    half = ops.broadcasting_mul(x, like(x, 0.5))
    return ops.mul(half, ops.broadcasting_add(tanh, like(x, 1)))


def _softmax(c: Context) -> None:
    x = c.input(0)
    if rank_of(x) == 0:
        c.give(constant(np.ones((), np.float32)))
        return
    c.give(ops.softmax(x, int32(positive(int(c.attributes.get("axis", -1)), rank_of(x)))))


TABLE: dict[str, Lowering] = {"Softmax": _softmax}

OPS: Mapping[str, Callable[..., Value]] = {
    "Ceil": _ceil,
    "Floor": _floor,
    "Neg": negative,
    "Reciprocal": reciprocal,
    "Sign": _sign,
    "Softplus": softplus,
    "Softsign": softsign,
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
}
"""The lowering of each unary ONNX operator that is not a single operation of Core AI."""
