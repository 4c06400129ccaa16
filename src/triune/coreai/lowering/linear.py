"""Lowering of matrix products."""

import numpy as np

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.values import cast, constant, int32s, is_float, like, rank_of, transpose


def _matmul(c: Context) -> None:
    c.give(matmul(c.input(0), c.input(1)))


def matmul(x: Value, y: Value) -> Value:
    """Write numpy's matmul: a vector `x` counts as a row, a vector `y` as a column.

    The dimension that is added to a vector is removed from the result.
    """
    is_row, is_column = rank_of(x) == 1, rank_of(y) == 1
    left = ops.expand_dims(x, int32s([0])) if is_row else x
    right = ops.expand_dims(y, int32s([1])) if is_column else y
    product = ops.broadcasting_batch_matmul(left, right)
    extra = [-2] * is_row + [-1] * is_column
    return ops.shrink_dims(product, int32s(extra)) if extra else product


def _gemm(c: Context) -> None:
    a, b = (
        _transposed_if(c.input(index), name in c.attributes and c.attributes[name]) for index, name in enumerate(_TURNS)
    )
    product = _scaled(ops.batch_matmul(a, b), c.attributes.get("alpha", 1.0))
    beta = c.attributes.get("beta", 1.0)
    if c.has(2) and beta != 0:
        product = ops.broadcasting_add(product, _scaled(c.input(2), beta))
    c.give(product)


_TURNS = ("transA", "transB")


def _transposed_if(x: Value, is_transposed: object) -> Value:
    return transpose(x, [1, 0]) if is_transposed else x


def _scaled(x: Value, factor: float) -> Value:
    if factor == 1:
        return x
    if is_float(x):
        return ops.broadcasting_mul(x, like(x, factor))
    return cast(ops.broadcasting_mul(cast(x, np.float32), constant(np.float32(factor))), np.int32)


TABLE: dict[str, Lowering] = {"MatMul": _matmul, "Gemm": _gemm}
