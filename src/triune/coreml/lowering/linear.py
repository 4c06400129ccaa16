"""Products of matrices."""

import numpy as np

from triune.coreml.lowering.broadcast import to_rank
from triune.coreml.lowering.context import Context, Lowering, is_float, like
from triune.coreml.lowering.mb import Var, mb


def _matmul(c: Context) -> None:
    c.give(matmul(c.input(0), c.input(1)))


def matmul(x: Var, y: Var) -> Var:
    """As numpy multiplies matrices: a vector is a row on the left, a column on the right."""
    is_row, is_column = x.rank == 1, y.rank == 1
    if not is_row and not is_column:
        # MIL wants both of one rank where neither is a plain matrix.
        rank = max(x.rank, y.rank)
        return mb.matmul(x=to_rank(x, rank), y=y if y.rank == 2 and y.val is not None else to_rank(y, rank))
    left = mb.expand_dims(x=x, axes=[0]) if is_row else x
    right = mb.expand_dims(x=y, axes=[1]) if is_column else y
    product = matmul(left, right)
    axes = [-2] * is_row + [-1] * is_column
    return mb.squeeze(x=product, axes=axes)


def _gemm(c: Context) -> None:
    a, b = c.input(0), c.input(1)
    alpha, beta = c.attributes.get("alpha", 1.0), c.attributes.get("beta", 1.0)
    turn_a, turn_b = bool(c.attributes.get("transA", 0)), bool(c.attributes.get("transB", 0))
    weight, bias = c.constant(1), c.constant(2)
    is_plain = alpha == 1 and not turn_a and weight is not None and is_float(a)
    if is_plain and weight is not None and (not c.has(2) or (bias is not None and beta == 1 and bias.ndim == 1)):
        matrix = weight if turn_b else np.ascontiguousarray(weight.T)
        if bias is None:
            c.give(mb.linear(x=a, weight=matrix))
            return
        if len(bias) == len(matrix):
            c.give(mb.linear(x=a, weight=matrix, bias=bias))
            return
    product = mb.matmul(x=a, y=b, transpose_x=turn_a, transpose_y=turn_b)
    if alpha != 1:
        product = _scale(product, alpha)
    if c.has(2) and beta != 0:
        product = mb.add(x=product, y=_scale(c.input(2), beta) if beta != 1 else c.input(2))
    c.give(product)


def _scale(x: Var, factor: float) -> Var:
    if is_float(x):
        return mb.mul(x=x, y=like(x, factor))
    return mb.cast(x=mb.mul(x=mb.cast(x=x, dtype="fp32"), y=np.float32(factor)), dtype="int32")


TABLE: dict[str, Lowering] = {"MatMul": _matmul, "Gemm": _gemm}
