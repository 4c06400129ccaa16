"""The argument of functions that lower a node (`Context`), and helpers for MIL values."""

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
    """A node with its attributes, operands and scope: see `NodeContext`.

    Attributes:
        target: the oldest system that must run the program, which limits the operations that it may use.
        precision: the precision in which the program will compute.
        note: is called with one line for each difference from the model.
    """

    target: Target
    precision: Precision
    note: Callable[[str], None]


Lowering: TypeAlias = Callable[[Context], None]
"""A function that adds operations for the outputs of a node.

It raises Refusal where the node cannot be computed exactly.
"""


def is_float(x: Var) -> bool:
    """Whether a value is fp16 or fp32."""
    return x.dtype in (types.fp16, types.fp32)


def is_bool(x: Var) -> bool:
    """Whether a value is bool."""
    return x.dtype == types.bool


def is_weight(x: Var) -> bool:
    """Whether `x` is a constant, or the result of an operation that dequantizes constants."""
    return x.val is not None or (x.op is not None and x.op.op_type.startswith("constexpr_"))


def dtype_of(x: Var) -> np.dtype[Any]:
    """The numpy dtype of a value."""
    return np.dtype(types.nptype_from_builtin(x.dtype))


def dtype_name(x: Var) -> str:
    """MIL's name for the element type of `x`, such as "fp16"."""
    return str(types.builtin_to_string(x.dtype))


def like(x: Var, value: float) -> Any:
    """Convert a number to a numpy scalar of the element type of `x`."""
    return dtype_of(x).type(value)


def static_shape(x: Var, what: str = "its shape") -> list[int]:
    """The shape of a value.

    Raises:
        Refusal: a size is not known; `what` begins the message.
    """
    if not all(is_fixed(dim) for dim in x.shape):
        raise Refusal(f"{what} is not fixed; give fixed sizes with --shape")
    return [int(dim) for dim in x.shape]


def has_static_shape(x: Var) -> bool:
    """Whether all sizes of a value are known."""
    return all(is_fixed(dim) for dim in x.shape)


def static_dim(x: Var, axis: int, what: str) -> int:
    """The size of dimension `axis`.

    Raises:
        Refusal: the size is not known; `what` begins the message.
    """
    if not is_fixed(x.shape[axis]):
        raise Refusal(f"{what} is not fixed; give a fixed size with --shape")
    return int(x.shape[axis])


def through_int(x: Var, op: Callable[[Var], Var]) -> Var:
    """Apply `op` to `x`; if `x` is bool, which some operations lack, convert it to int32 before and back after."""
    if not is_bool(x):
        return op(x)
    return truth(op(mb.cast(x=x, dtype="int32")))


def truth(x: Var) -> Var:
    """Write x != 0, element by element."""
    return mb.not_equal(x=x, y=like(x, 0))
