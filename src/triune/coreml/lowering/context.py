"""What the lowering of an operator is given, and what it may use."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from triune.coreml.lowering.mb import Var, is_fixed, mb, types
from triune.coreml.lowering.options import Target
from triune.graph.conversion.context import NodeContext
from triune.graph.conversion.options import Precision
from triune.graph.conversion.problems import Refusal

MAX_RANK = 5


@dataclass(frozen=True)
class Context(NodeContext[Var]):
    """A node, and what is known around it: see `NodeContext`.

    Attributes:
        target: what the program may use.
        precision: in which it will compute.
        note: told of what could not be kept as it was.
    """

    target: Target
    precision: Precision
    note: Callable[[str], None]


Lowering: TypeAlias = Callable[[Context], None]
"""Builds ops that give the outputs of the node. Raises Refusal where it cannot be done exactly."""


def is_float(x: Var) -> bool:
    """Is it fp16 or fp32?"""
    return x.dtype in (types.fp16, types.fp32)


def is_bool(x: Var) -> bool:
    """Is it of truth values?"""
    return x.dtype == types.bool


def is_weight(x: Var) -> bool:
    """Is it a constant, or one that the program unpacks?"""
    return x.val is not None or (x.op is not None and x.op.op_type.startswith("constexpr_"))


def dtype_of(x: Var) -> np.dtype[Any]:
    """Numpy's dtype of a value."""
    return np.dtype(types.nptype_from_builtin(x.dtype))


def dtype_name(x: Var) -> str:
    """MIL's word for the element type, as `cast` takes it."""
    return str(types.builtin_to_string(x.dtype))


def like(x: Var, value: float) -> Any:
    """A scalar of the element type of `x`."""
    return dtype_of(x).type(value)


def static_shape(x: Var, what: str = "its shape") -> list[int]:
    """The shape, where all of it must be known."""
    if not all(is_fixed(dim) for dim in x.shape):
        raise Refusal(f"{what} is not fixed; give fixed sizes with --shape")
    return [int(dim) for dim in x.shape]


def has_static_shape(x: Var) -> bool:
    """Is all of the shape known?"""
    return all(is_fixed(dim) for dim in x.shape)


def static_dim(x: Var, axis: int, what: str) -> int:
    """A dimension that must be known."""
    if not is_fixed(x.shape[axis]):
        raise Refusal(f"{what} is not fixed; give a fixed size with --shape")
    return int(x.shape[axis])


def through_int(x: Var, op: Callable[[Var], Var]) -> Var:
    """`op` on truth values as 0 and 1, for ops that take none."""
    if not is_bool(x):
        return op(x)
    return truth(op(mb.cast(x=x, dtype="int32")))


def truth(x: Var) -> Var:
    """Where it is not zero."""
    return mb.not_equal(x=x, y=like(x, 0))
