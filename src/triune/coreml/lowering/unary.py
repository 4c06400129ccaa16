"""Lowering of ONNX's elementwise operators with one operand, and of Softmax."""

from collections.abc import Callable, Mapping

import numpy as np

from triune.core.datatypes import Array
from triune.coreml.lowering.context import Context, Lowering, is_float, like
from triune.coreml.lowering.mb import Var, mb
from triune.graph.conversion.lowering import elementwise


def _relu(x: Var) -> Var:
    return mb.relu(x=x) if is_float(x) else mb.maximum(x=x, y=np.int32(0))


def _reciprocal(x: Var) -> Var:
    if x.op is not None and x.op.op_type == "sqrt":
        # Write rsqrt: `passes.norms` looks for it after a mean of squares, in order to fuse layer normalizations.
        return mb.rsqrt(x=x.op.x, epsilon=like(x, 0))
    # Divide 1 by x, since MIL's operation `inverse` computes 1 / (x + epsilon).
    return mb.real_div(x=like(x, 1), y=x)


def _neg(x: Var) -> Var:
    return mb.mul(x=x, y=like(x, -1))


def _log(x: Var) -> Var:
    # MIL's log computes log(x + epsilon). Set epsilon to 0: with its default the logarithm of 0 would be finite.
    return mb.log(x=x, epsilon=like(x, 0))


def _with_factors(name: str) -> Callable[..., Var]:
    """Return a function that writes MIL's operation `name`, with its attributes in the element type of `x`."""

    def write(x: Var, **factors: float) -> Var:
        return getattr(mb, name)(x=x, **{key: like(x, factor) for key, factor in factors.items()})

    return write


def _gelu(x: Var, approximate: str) -> Var:
    return mb.gelu(x=x, mode={"none": "EXACT", "tanh": "TANH_APPROXIMATION"}[approximate])


OPS: Mapping[str, Callable[..., Var]] = {
    "Relu": _relu,
    "Neg": _neg,
    "Log": _log,
    "Reciprocal": _reciprocal,
    "LeakyRelu": _with_factors("leaky_relu"),
    "Elu": _with_factors("elu"),
    "HardSigmoid": _with_factors("sigmoid_hard"),
    "Gelu": _gelu,
}
"""The lowering of each unary ONNX operator that is not a single operation of MIL."""


def _prelu(c: Context) -> None:
    x, known = c.input(0), c.constant(1)
    if known is not None and is_float(x) and _is_per_channel(known.shape, x):
        c.give(mb.prelu(x=x, alpha=known.reshape(-1)))
    else:
        elementwise.prelu(c)


def _is_per_channel(shape: tuple[int, ...], x: Var) -> bool:
    """Whether the shape means one slope for each channel of `x`, and MIL's prelu accepts this."""
    # For x of rank 3 or 5, MIL's prelu takes only one slope for all channels.
    return x.rank == 4 and len(shape) == x.rank - 1 and shape[0] == x.shape[1] and all(dim == 1 for dim in shape[1:])


def _clip(c: Context) -> None:
    x = c.input(0)
    low, high = c.constant(1), c.constant(2)
    if is_float(x) and low is not None and high is not None and _is_range(low, high):
        c.give(mb.clip(x=x, alpha=like(x, low.item()), beta=like(x, high.item())))
    else:
        elementwise.clip(c)


def _is_range(low: Array, high: Array) -> bool:
    """Whether MIL's clip accepts the limits: rounded to fp16, both are finite, and `low` is less than `high`."""
    with np.errstate(over="ignore"):
        ends = np.float16(low), np.float16(high)
    return bool(np.isfinite(ends).all() and ends[0] < ends[1])


def _softmax(c: Context) -> None:
    c.give(mb.softmax(x=c.input(0), axis=int(c.attributes.get("axis", -1))))


TABLE: dict[str, Lowering] = {"PRelu": _prelu, "Clip": _clip, "Softmax": _softmax}
