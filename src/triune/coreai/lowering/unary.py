"""Operators of one operand, element by element: arithmetic, casts, activations."""

import math
from collections.abc import Callable

import numpy as np
from onnx import helper

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.values import axis, cast, constant, dtype_of, is_bool, is_float, like, rank_of
from triune.graph.axes import positive
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import EMPTY
from triune.graph.passes.narrow_values import NARROWED

_KINDS = tuple(map(np.dtype, (np.float16, np.float32, np.int32, np.bool_)))


def _same(name: str) -> Lowering:
    """An operation of the same meaning."""

    def lower(c: Context) -> None:
        c.give(getattr(ops, name)(c.input(0)))

    return lower


def _made(make: Callable[[Value], Value]) -> Lowering:
    """Made of several operations."""

    def lower(c: Context) -> None:
        c.give(make(c.input(0)))

    return lower


def floor(x: Value) -> Value:
    """The next whole number below a finite one."""
    return ops.broadcasting_floor_divide(x, like(x, 1)) if is_float(x) else x


def _floor(x: Value) -> Value:
    """The next whole number below, of infinities too, of which Apple's floor division makes no number."""
    if not is_float(x):
        return x
    # Floats of a significand of n bits are whole from 2^(n-1) on.
    bound = like(x, 2.0 ** np.finfo(dtype_of(x)).nmant)
    return ops.broadcasting_where(ops.broadcasting_greater(bound, ops.abs_(x)), floor(x), x)


def negative(x: Value) -> Value:
    """`x` with the other sign."""
    return ops.broadcasting_mul(x, like(x, -1))


def reciprocal(x: Value) -> Value:
    """1 by `x`."""
    return ops.broadcasting_divide(like(x, 1), x)


def ceil(x: Value) -> Value:
    """The next whole number above a finite one."""
    return negative(floor(negative(x)))


def _sign(x: Value) -> Value:
    if is_bool(x):
        raise Refusal("the sign of truth values")
    # Zeros and what is no number stay what they are.
    zero = like(x, 0)
    below = ops.broadcasting_where(ops.broadcasting_greater(zero, x), like(x, -1), x)
    return ops.broadcasting_where(ops.broadcasting_greater(x, zero), like(x, 1), below)


def softplus(x: Value) -> Value:
    """log(1 + exp(x)), for large `x` too: max(x, 0) + log(1 + e), where e = exp(-|x|)."""
    e = ops.exp(negative(ops.abs_(x)))
    rest = ops.log(ops.broadcasting_add(e, like(x, 1)))
    # 1 + e rounds away most of a small e: there log(1 + e) = e (1 + e (-1/2 + e (1/3 - e/4))), but for e^5/5.
    series = ops.broadcasting_mul(e, like(x, -1 / 4))
    for term in (1 / 3, -1 / 2, 1):
        series = ops.broadcasting_mul(e, ops.broadcasting_add(series, like(x, term)))
    return ops.add(ops.relu(x), ops.broadcasting_where(ops.broadcasting_greater(like(x, 2**-6), e), series, rest))


def softsign(x: Value) -> Value:
    """Each element by 1 more than its absolute value."""
    return ops.divide(x, ops.broadcasting_add(ops.abs_(x), like(x, 1)))


def _identity(c: Context) -> None:
    c.give(EMPTY if c.is_empty(0) else c.input(0))


def _cast(c: Context) -> None:
    to = int(c.attributes["to"])
    dtype = helper.tensor_dtype_to_np_dtype(NARROWED.get(to, to))
    if dtype not in _KINDS:
        kind = helper.tensor_dtype_to_string(to)
        raise Refusal(f"a cast to {kind}: core ops compute in fp16, fp32, int32 and bool; cast to one of these")
    c.give(EMPTY if c.is_empty(0) else cast(c.input(0), dtype))


def _leaky_relu(c: Context) -> None:
    x = c.input(0)
    _give_below(c, x, ops.broadcasting_mul(x, like(x, c.attributes.get("alpha", 0.01))))


def _elu(c: Context) -> None:
    x = c.input(0)
    # Of what is above 0 nothing is used, and its exponential may be infinite.
    below = ops.broadcasting_minimum(x, like(x, 0))
    _give_below(c, x, ops.broadcasting_mul(_grown(below), like(x, c.attributes.get("alpha", 1.0))))


def _grown(x: Value) -> Value:
    """exp(x) - 1, and where that rounds a small `x` away x (1 + x (1/2 + x (1/6 + x/24))), but for x^5/120."""
    series = ops.broadcasting_mul(x, like(x, 1 / 24))
    for term in (1 / 6, 1 / 2, 1):
        series = ops.broadcasting_mul(x, ops.broadcasting_add(series, like(x, term)))
    rest = ops.broadcasting_sub(ops.exp(x), like(x, 1))
    return ops.broadcasting_where(ops.broadcasting_greater(like(x, 2**-4), ops.abs_(x)), series, rest)


def _prelu(c: Context) -> None:
    x = c.input(0)
    _give_below(c, x, ops.broadcasting_mul(x, c.input(1)))


def _give_below(c: Context, x: Value, below: Value) -> None:
    """`x` itself from 0 on, and `below` below."""
    c.give(ops.broadcasting_where(ops.broadcasting_greater(like(x, 0), x), below, x))


def _hard_sigmoid(c: Context) -> None:
    x = c.input(0)
    line = ops.broadcasting_mul(x, like(x, c.attributes.get("alpha", 0.2)))
    line = ops.broadcasting_add(line, like(x, c.attributes.get("beta", 0.5)))
    c.give(ops.broadcasting_minimum(ops.relu(line), like(x, 1)))


def _gelu(c: Context) -> None:
    x = c.input(0)
    if c.attributes.get("approximate", "none") == "none":
        c.give(ops.gelu(x))
        return
    cube = ops.mul(ops.mul(x, x), x)
    inner = ops.add(x, ops.broadcasting_mul(cube, like(x, 0.044715)))
    tanh = ops.tanh(ops.broadcasting_mul(inner, like(x, math.sqrt(2 / math.pi))))
    half = ops.broadcasting_mul(x, like(x, 0.5))
    c.give(ops.mul(half, ops.broadcasting_add(tanh, like(x, 1))))


def _clip(c: Context) -> None:
    x = c.input(0)
    if c.has(1):
        x = ops.broadcasting_maximum(x, c.input(1))
    if c.has(2):
        x = ops.broadcasting_minimum(x, c.input(2))
    c.give(x)


def _softmax(c: Context) -> None:
    x = c.input(0)
    if rank_of(x) == 0:
        c.give(constant(np.ones((), np.float32)))
        return
    c.give(ops.softmax(x, axis(positive(int(c.attributes.get("axis", -1)), rank_of(x)))))


TABLE: dict[str, Lowering] = {
    **{
        op: _same(name)
        for op, name in {
            "Abs": "abs_",
            "Acos": "acos",
            "Asin": "asin",
            "Atan": "atan",
            "Atanh": "atanh",
            "Cos": "cos",
            "Cosh": "cosh",
            "Erf": "erf",
            "Exp": "exp",
            "Log": "log",
            "Not": "not_",
            "Relu": "relu",
            "Round": "round_",
            "Sigmoid": "sigmoid",
            "Sin": "sin",
            "Sinh": "sinh",
            "Sqrt": "sqrt",
            "Tan": "tan",
            "Tanh": "tanh",
        }.items()
    },
    "Ceil": _made(lambda x: negative(_floor(negative(x)))),
    "Floor": _made(_floor),
    "Neg": _made(negative),
    "Reciprocal": _made(reciprocal),
    "Sign": _made(_sign),
    "Softplus": _made(softplus),
    "Softsign": _made(softsign),
    "Identity": _identity,
    "Cast": _cast,
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "PRelu": _prelu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Clip": _clip,
    "Softmax": _softmax,
}
