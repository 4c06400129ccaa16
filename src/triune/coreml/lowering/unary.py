"""Operators of one operand, element by element: arithmetic, casts, activations."""

from collections.abc import Callable, Mapping

import numpy as np
from onnx import TensorProto, helper

from triune.core.datatypes import Array
from triune.coreml.lowering.broadcast import logical, select
from triune.coreml.lowering.context import Context, Lowering, Refusal, dtype_name, is_bool, is_float, like
from triune.coreml.lowering.mb import Var, mb
from triune.coreml.lowering.scope import EMPTY

MIL_TYPES: Mapping[int, str] = {
    TensorProto.FLOAT16: "fp16",
    TensorProto.FLOAT: "fp32",
    TensorProto.DOUBLE: "fp32",
    TensorProto.BOOL: "bool",
    **dict.fromkeys(
        [
            *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
            *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
        ],
        "int32",
    ),
}
"""A narrowed graph has the other integers only where ONNX insists on them: their values are those of int32."""


def _float(name: str) -> Lowering:
    """An op of MIL of the same meaning, for floats alone."""

    def lower(c: Context) -> None:
        c.give(getattr(mb, name)(x=c.input(0)))

    return lower


def _or_integer(name: str, integer: Callable[[Var], Var]) -> Lowering:
    """An op for floats, and what it is on whole numbers."""

    def lower(c: Context) -> None:
        x = c.input(0)
        c.give(getattr(mb, name)(x=x) if is_float(x) else integer(x))

    return lower


def _neg(c: Context) -> None:
    x = c.input(0)
    c.give(mb.mul(x=x, y=like(x, -1)))


def _log(c: Context) -> None:
    # The default epsilon would make the logarithm of 0 finite.
    x = c.input(0)
    c.give(mb.log(x=x, epsilon=like(x, 0)))


def _reciprocal(c: Context) -> None:
    # MIL's inverse adds an epsilon.
    x = c.input(0)
    if x.op is not None and x.op.op_type == "sqrt":
        # A mean of squares and this are a layer normalization: see passes.norms.
        c.give(mb.rsqrt(x=x.op.x, epsilon=like(x, 0)))
        return
    c.give(mb.real_div(x=like(x, 1), y=x))


def _not(c: Context) -> None:
    c.give(mb.logical_not(x=c.input(0)))


def _identity(c: Context) -> None:
    c.give(EMPTY if c.is_empty(0) else c.input(0))


def _cast(c: Context) -> None:
    c.give(EMPTY if c.is_empty(0) else cast(c.input(0), int(c.attributes["to"])))


def cast(x: Var, to: int) -> Var:
    """`x` as an element type of ONNX. Floats lose what is behind the point."""
    kind = MIL_TYPES.get(to)
    if kind is None:
        raise Refusal(f"a cast to {helper.tensor_dtype_to_string(to)}: Core ML computes in fp16, fp32, int32 and bool")
    if kind == dtype_name(x):
        return x
    return logical(x) if kind == "bool" else mb.cast(x=x, dtype=kind)


def _leaky_relu(c: Context) -> None:
    x = c.input(0)
    c.give(mb.leaky_relu(x=x, alpha=like(x, c.attributes.get("alpha", 0.01))))


def _elu(c: Context) -> None:
    x = c.input(0)
    c.give(mb.elu(x=x, alpha=like(x, c.attributes.get("alpha", 1.0))))


def _hard_sigmoid(c: Context) -> None:
    x = c.input(0)
    alpha, beta = c.attributes.get("alpha", 0.2), c.attributes.get("beta", 0.5)
    c.give(mb.sigmoid_hard(x=x, alpha=like(x, alpha), beta=like(x, beta)))


def _gelu(c: Context) -> None:
    mode = {"none": "EXACT", "tanh": "TANH_APPROXIMATION"}[c.attributes.get("approximate", "none")]
    c.give(mb.gelu(x=c.input(0), mode=mode))


def _prelu(c: Context) -> None:
    x, slope = c.input(0), c.input(1)
    known = c.constant(1)
    if known is not None and is_float(x) and _is_per_channel(known.shape, x):
        c.give(mb.prelu(x=x, alpha=known.reshape(-1)))
        return
    c.give(select(mb.less(x=x, y=like(x, 0)), mb.mul(x=x, y=slope), x))


def _is_per_channel(shape: tuple[int, ...], x: Var) -> bool:
    # Of ranks 3 and 5 MIL's prelu takes one slope only.
    return x.rank == 4 and len(shape) == x.rank - 1 and shape[0] == x.shape[1] and all(dim == 1 for dim in shape[1:])


def _clip(c: Context) -> None:
    x = c.input(0)
    low, high = c.constant(1), c.constant(2)
    if is_float(x) and low is not None and high is not None and _is_range(low, high):
        c.give(mb.clip(x=x, alpha=like(x, low.item()), beta=like(x, high.item())))
        return
    if c.has(1):
        x = mb.maximum(x=x, y=c.input(1))
    if c.has(2):
        x = mb.minimum(x=x, y=c.input(2))
    c.give(x)


def _is_range(low: Array, high: Array) -> bool:
    """Does MIL's clip take these ends? It takes no equal ones, and those that differ may become equal in fp16."""
    with np.errstate(over="ignore"):
        ends = np.float16(low), np.float16(high)
    return bool(np.isfinite(ends).all() and ends[0] < ends[1])


def _softmax(c: Context) -> None:
    c.give(mb.softmax(x=c.input(0), axis=int(c.attributes.get("axis", -1))))


def _abs(c: Context) -> None:
    c.give(mb.abs(x=c.input(0)))


def _sign(c: Context) -> None:
    x = c.input(0)
    if is_bool(x):
        raise Refusal("the sign of truth values")
    c.give(mb.sign(x=x))


TABLE: dict[str, Lowering] = {
    **{
        op: _float(name)
        for op, name in {
            "Acos": "acos",
            "Asin": "asin",
            "Atan": "atan",
            "Atanh": "atanh",
            "Ceil": "ceil",
            "Cos": "cos",
            "Cosh": "cosh",
            "Erf": "erf",
            "Exp": "exp",
            "Floor": "floor",
            "Round": "round",
            "Sigmoid": "sigmoid",
            "Sin": "sin",
            "Sinh": "sinh",
            "Sqrt": "sqrt",
            "Tan": "tan",
            "Tanh": "tanh",
            "Softplus": "softplus",
            "Softsign": "softsign",
        }.items()
    },
    "Relu": _or_integer("relu", lambda x: mb.maximum(x=x, y=np.int32(0))),
    "Abs": _abs,
    "Sign": _sign,
    "Neg": _neg,
    "Log": _log,
    "Reciprocal": _reciprocal,
    "Not": _not,
    "Identity": _identity,
    "Cast": _cast,
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "PRelu": _prelu,
    "Clip": _clip,
    "Softmax": _softmax,
}
