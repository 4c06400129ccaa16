"""Operators that compute element by element: arithmetic, comparisons, casts, activations."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import helper

from triune.graph.conversion.context import Lowering, NodeContext
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import EMPTY, V
from triune.graph.passes.narrow_values import NARROWED

_KINDS = tuple(map(np.dtype, (np.float16, np.float32, np.int32, np.bool_)))

_ATTRIBUTES: Mapping[str, Mapping[str, Any]] = {
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "Gelu": {"approximate": "none"},
    "Mod": {"fmod": 0},
}
"""The attributes of operators, with ONNX's defaults."""


def _written(c: NodeContext[V]) -> None:
    """Lower a node to the operation of the same name, by `Builder.elementwise`."""
    op = c.node.op_type
    attributes = {name: c.attributes.get(name, default) for name, default in _ATTRIBUTES.get(op, {}).items()}
    c.give(c.builder.elementwise(op, *map(c.input, range(len(c.node.input))), **attributes))


def _identity(c: NodeContext[V]) -> None:
    c.give(EMPTY if c.is_empty(0) else c.input(0))


def _cast(c: NodeContext[V]) -> None:
    c.give(EMPTY if c.is_empty(0) else c.builder.cast(c.input(0), cast_type(int(c.attributes["to"]))))


def cast_type(elem_type: int) -> np.dtype[Any]:
    """The numpy dtype of a Cast's attribute `to`, in a graph after `Narrow`. Raises Refusal for another type than fp16,
    fp32, int32 and bool.
    """
    dtype = helper.tensor_dtype_to_np_dtype(NARROWED.get(elem_type, elem_type))
    if dtype not in _KINDS:
        kind = helper.tensor_dtype_to_string(elem_type)
        raise Refusal(f"a cast to {kind}: core ops compute in fp16, fp32, int32 and bool; cast to one of these")
    return dtype


def _sign(c: NodeContext[V]) -> None:
    if c.builder.is_bool(c.input(0)):
        raise Refusal("the sign of booleans; cast them to FLOAT")
    _written(c)


def prelu(c: NodeContext[V]) -> None:
    """PRelu: x where x >= 0, else slope * x."""
    b, x = c.builder, c.input(0)
    below = b.elementwise("Mul", x, c.input(1))
    c.give(b.elementwise("Where", b.greater(0, x), below, x))


def clip(c: NodeContext[V]) -> None:
    """Clip: min(max(x, low), high); either limit may be omitted."""
    x = c.input(0)
    for index, op in enumerate(("Max", "Min"), start=1):
        if c.has(index):
            x = c.builder.elementwise(op, x, c.input(index))
    c.give(x)


def _extreme(c: NodeContext[V]) -> None:
    x = c.input(0)
    if len(c.node.input) == 1:
        c.give(x)
    elif c.builder.is_bool(x):
        c.give(c.builder.elementwise({"Max": "Or", "Min": "And"}[c.node.op_type], x, c.input(1)))
    else:
        _written(c)


def _pow(c: NodeContext[V]) -> None:
    b, x, y = c.builder, c.input(0), c.input(1)
    wide = x if b.is_float(x) or not b.is_float(y) else b.cast(x, b.dtype(y))
    c.give(b.cast(b.elementwise("Pow", wide, b.cast(y, b.dtype(wide))), b.dtype(x)))


_WRITTEN = [
    *("Abs", "Acos", "Asin", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Log", "Neg", "Not"),
    *("Reciprocal", "Round", "Sigmoid", "Sin", "Sinh", "Sqrt", "Tan", "Tanh"),
    *("Relu", "LeakyRelu", "Elu", "Softplus", "Softsign", "HardSigmoid", "Gelu"),
    *("Add", "Sub", "Mul", "Div", "Mod", "And", "Or", "Xor", "Where"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
]

TABLE: Mapping[str, Lowering] = {
    **dict.fromkeys(_WRITTEN, _written),
    "Identity": _identity,
    "Cast": _cast,
    "Sign": _sign,
    "PRelu": prelu,
    "Clip": clip,
    "Max": _extreme,
    "Min": _extreme,
    "Pow": _pow,
}
