"""Products of matrices: linear, matmul, einsum and attention."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.graph.raising.graph import Graph, Tensor


def transposed(graph: Graph, tensor: Tensor) -> Tensor:
    """Swap the last two dimensions. A constant is transposed during the conversion, unless it stays quantized."""
    if tensor.constant is not None and tensor.name not in graph.root.quantized:
        array = np.swapaxes(tensor.constant, -1, -2)
        return Tensor(graph.root.fresh(f"{tensor.name}/transposed"), tensor.dtype, array.shape, array)
    perm = list(range(tensor.rank))
    perm[-2:] = perm[-1], perm[-2]
    return graph.op("Transpose", tensor, perm=perm)


def _linear(graph: Graph, given: Given) -> Tensor:
    """Write x @ weight^T + bias."""
    x, bias = given["x"], given.maybe("bias")
    weight = graph.cast(given["weight"], x.dtype)
    if weight.rank != 2:
        raise InvalidArgumentError(f"the weight has {weight.rank} dimensions instead of 2")
    product = graph.op("MatMul", x, transposed(graph, weight))
    return product if bias is None else graph.op("Add", product, graph.cast(bias, x.dtype))


def _matmul(graph: Graph, given: Given) -> Tensor:
    """Write a matrix product, which broadcasts leading dimensions. The operands are cast to the type of the result; or
    to fp32, if the result is fp16 and an operand, which must be a constant, is fp32.
    """
    factors: list[Tensor] = []
    is_wide = given.dtype is DType.FP16 and DType.FP32 in (given["x"].dtype, given["y"].dtype)
    for name in ("x", "y"):
        tensor = graph.cast(given[name], DType.FP32 if is_wide else given.dtype)
        is_transposed = given.flag(f"transpose_{name}") and tensor.rank > 1
        factors.append(transposed(graph, tensor) if is_transposed else tensor)
    return graph.op("MatMul", *factors)


def _einsum(graph: Graph, given: Given) -> Tensor:
    """Raise einsum of the only equation that MIL has: nchw,nwhu->nchu. n stands for any leading dimensions.

    The leading dimensions and h broadcast.
    """
    x, y = given.many("values")
    equation = given.text("equation").replace(" ", "")
    left, _, right = equation.partition("->")
    first, _, second = left.partition(",")
    batch = first[:-3]
    is_known = (
        len(first) in (3, 4)
        and len(set(first)) == len(first) == x.rank == y.rank
        and second[:-3] == batch
        and second[-3:-1] == first[-1] + first[-2]
        and right == first[:-1] + second[-1]
    )
    if not is_known:
        return graph.op("Einsum", x, y, equation=equation)
    # Transpose nchw to nhcw and nwhu to nhwu, so that h is a batch dimension of a MatMul.
    swap = [*range(x.rank - 3), x.rank - 2, x.rank - 3, x.rank - 1]
    product = graph.op("MatMul", graph.op("Transpose", x, perm=swap), graph.op("Transpose", y, perm=swap))
    return graph.op("Transpose", product, perm=swap)


def _attention(graph: Graph, given: Given) -> Tensor:
    """Write softmax(query @ key^T / sqrt(E) + mask) @ value. A bool mask is true for keys that take part."""
    query, key, value, mask = given["query"], given["key"], given["value"], given.maybe("attn_mask")
    width = query.size(-1)
    if width is None:
        width = key.size(-1)
    if width is not None:
        root = graph.like(math.sqrt(width), query)
    else:
        size = graph.op("Shape", query, dtype=DType.INT64, start=-1)
        root = graph.cast(graph.op("Sqrt", graph.cast(size, DType.FP32)), query.dtype)
    scores = graph.op("Div", graph.op("MatMul", query, transposed(graph, key)), root)
    if mask is not None:
        if mask.dtype is DType.BOOL:
            low = graph.like(-np.inf, query)
            mask = graph.op("Where", mask, graph.like(0, query), low, dtype=query.dtype)
        scores = graph.op("Add", scores, graph.cast(mask, query.dtype))
    return graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "einsum": _einsum,
        "linear": _linear,
        "matmul": _matmul,
        "scaled_dot_product_attention": _attention,
    }
)
