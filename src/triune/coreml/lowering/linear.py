"""Lowering of MatMul and Gemm."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.coreml.lowering.broadcast import to_rank
from triune.coreml.lowering.context import Context, Lowering, is_float, is_weight, like
from triune.coreml.lowering.mb import Var, mb
from triune.coreml.lowering.packed import packed_input, unpacked

HEIGHT = 2
"""The axis of size 1 in the Neural Engine's layout (B, C, 1, S)."""


_MOST_AXES = 3
"""The largest rank of an operand that MIL's `linear` accepts."""


def _matmul(c: Context) -> None:
    x, packed = c.input(0), packed_input(c, 1)
    if packed is not None and packed.data.ndim == 2 and 2 <= x.rank <= _MOST_AXES:
        c.give(mb.linear(x=x, weight=unpacked(c, packed.transposed(1, 0))))
        return
    c.give(matmul(x, c.input(1)))


def matmul(x: Var, y: Var) -> Var:
    """Write numpy's matmul: a vector `x` counts as a row, a vector `y` as a column. The dimension that is added to a
    vector is removed from the result.
    """
    is_row, is_column = x.rank == 1, y.rank == 1
    if not is_row and not is_column:
        # Give the operands equal rank, which MIL requires unless the right one is a constant matrix.
        rank = max(x.rank, y.rank)
        return mb.matmul(x=to_rank(x, rank), y=y if y.rank == 2 and is_weight(y) else to_rank(y, rank))
    left = mb.expand_dims(x=x, axes=[0]) if is_row else x
    right = mb.expand_dims(x=y, axes=[1]) if is_column else y
    product = matmul(left, right)
    axes = [-2] * is_row + [-1] * is_column
    return mb.squeeze(x=product, axes=axes)


def product_of_images(x: Var, axes: Sequence[int]) -> Var | None:
    """Write Unsqueeze(MatMul(Squeeze(p), Squeeze(q))) as one einsum, "nchw,nwhu->nchu".

    This gives the attention of `triune.graph.ane` the form that it has in Apple's ml-ane-transformers.

    Args:
        x: the product; p must be of shape (n, c, 1, w) and q of (n, w, 1, u).
        axes: the axes of the Unsqueeze, which must be [2].

    Returns:
        the result, (n, c, 1, u); None if `x` or `axes` are different.
    """
    op = x.op
    if list(axes) != [HEIGHT] or op is None or op.op_type != "matmul" or op.transpose_x.val or op.transpose_y.val:
        return None
    left, right = _squeezed_from(op.x), _squeezed_from(op.y)
    if left is None or right is None or left.shape[0] != right.shape[0]:
        return None
    return mb.einsum(values=(left, right), equation="nchw,nwhu->nchu")


def _squeezed_from(x: Var) -> Var | None:
    """If `x` is Squeeze(y) with axes [2] and y has four dimensions, return y; else None."""
    op = x.op
    if op is None or op.op_type != "squeeze" or op.x.rank != 4 or list(op.axes.val) != [HEIGHT]:
        return None
    return op.x


def _gemm(c: Context) -> None:
    a = c.input(0)
    alpha, beta = c.attributes.get("alpha", 1.0), c.attributes.get("beta", 1.0)
    trans_a, trans_b = bool(c.attributes.get("transA", 0)), bool(c.attributes.get("transB", 0))
    weight, bias = c.constant(1), c.constant(2)
    is_plain = alpha == 1 and not trans_a and weight is not None and is_float(a)
    if is_plain and weight is not None and (not c.has(2) or (bias is not None and beta == 1 and bias.ndim == 1)):
        matrix = _linear_weight(c, weight, trans_b)
        if bias is None:
            c.give(mb.linear(x=a, weight=matrix))
            return
        if len(bias) == matrix.shape[0]:
            c.give(mb.linear(x=a, weight=matrix, bias=bias))
            return
    product = mb.matmul(x=a, y=c.input(1), transpose_x=trans_a, transpose_y=trans_b)
    if alpha != 1:
        product = _scale(product, alpha)
    if c.has(2) and beta != 0:
        product = mb.add(x=product, y=_scale(c.input(2), beta) if beta != 1 else c.input(2))
    c.give(product)


def _linear_weight(c: Context, weight: NDArray[Any], is_transposed: bool) -> Any:
    """The weight of Gemm in the layout of MIL's `linear`, (N, K); packed weights stay packed."""
    packed = packed_input(c, 1)
    if packed is not None:
        return unpacked(c, packed if is_transposed else packed.transposed(1, 0))
    return weight if is_transposed else np.ascontiguousarray(weight.T)


def _scale(x: Var, factor: float) -> Var:
    if is_float(x):
        return mb.mul(x=x, y=like(x, factor))
    return mb.cast(x=mb.mul(x=mb.cast(x=x, dtype="fp32"), y=np.float32(factor)), dtype="int32")


TABLE: dict[str, Lowering] = {"MatMul": _matmul, "Gemm": _gemm}
