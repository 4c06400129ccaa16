"""Shared by the attention operators of com.microsoft: splitting into heads, masks, and softmax(Q K^T) V."""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from triune.graph.decompose.context import Context


@dataclass(frozen=True, slots=True)
class Scores:
    """How the attention scores (the products of queries and keys) are scaled, biased and masked.

    Attributes:
        scale: the factor of the products; 0 means 1 / sqrt(head size).
        softcap: if it is not 0, a product p becomes softcap * tanh(p / softcap).
        bias: the name of what is added to the products, which broadcasts to (batch, heads, queries, keys); "" for none.
        allowed: the name of a BOOL that broadcasts to the same shape, true where a query attends to a key; "" if all
            do.
        sink: the name of the logit (1, heads, 1, 1) of one more key that has no value; "" for none.
    """

    scale: float = 0.0
    softcap: float = 0.0
    bias: str = ""
    allowed: str = ""
    sink: str = ""


def split_heads(c: Context, x: str, num_heads: int) -> str:
    """Build (batch, heads, n, size) from (batch, n, heads * size), for n tokens."""
    b = c.build
    return b.op("Transpose", b.op("Reshape", x, b.ints(0, 0, num_heads, -1)), perm=[0, 2, 1, 3])


def join_heads(c: Context, x: str) -> str:
    """Build (batch, n, heads * size) from (batch, heads, n, size), for n tokens."""
    b = c.build
    return b.op("Reshape", b.op("Transpose", x, perm=[0, 2, 1, 3]), b.ints(0, 0, -1))


def repeat_heads(c: Context, x: str, times: int) -> str:
    """Build (batch, heads * times, n, size), with each head repeated `times` times in a row."""
    if times == 1:
        return x
    b = c.build
    # Tile repeats (batch, heads, 1, n * size) along the third axis. More axes are avoided: Core ML supports at most 5.
    shape = b.op("Shape", x)
    heads = b.op("Gather", shape, b.ints(1))
    flat = b.op("Reshape", x, b.ints(0, 0, 1, -1))
    tiled = b.op("Tile", flat, b.ints(1, 1, times, 1))
    target = b.op(
        "Concat",
        b.op("Gather", shape, b.ints(0)),
        b.op("Mul", heads, b.ints(times)),
        b.op("Gather", shape, b.ints(2)),
        b.op("Gather", shape, b.ints(3)),
        axis=0,
    )
    return b.op("Reshape", tiled, target)


def size_of(c: Context, x: str, axis: int) -> str:
    """Build INT64 (1,), the size of `x` along an axis."""
    return c.build.op("Gather", c.build.op("Shape", x), c.build.ints(axis))


def range_of(c: Context, size: str, start: str = "") -> str:
    """Build INT64 (size,): start, start + 1, ... `start` and `size` are INT64 (1,); "" for `start` means 0."""
    b = c.build
    scalar = b.op("Squeeze", size, b.ints(0))
    zero, one = b.constant(0, np.int64), b.constant(1, np.int64)
    numbers = b.op("Range", zero, scalar, one)
    return b.op("Add", numbers, start) if start else numbers


def causal(c: Context, num_queries: str, num_keys: str, num_past: str) -> str:
    """Build the causal mask, BOOL (queries, keys): query i attends to key j <= i + past, and the last query attends to
    all keys.

    ONNX Runtime's CPU kernel does the same (attention_helper.h), even if the number of keys is not the number of cached
    keys plus the number of queries. The sizes are INT64 (1,); `num_past` is the number of cached keys.
    """
    b, one = c.build, c.build.ints(1)
    before = range_of(c, b.op("Sub", num_queries, one), num_past)
    positions = b.op("Concat", before, b.op("Sub", num_keys, one), axis=0)
    return b.op(
        "LessOrEqual", b.op("Unsqueeze", range_of(c, num_keys), b.ints(0)), b.op("Unsqueeze", positions, b.ints(1))
    )


def mask_as_bias(c: Context, allowed: str, filtered: float, elem_type: int) -> str:
    """Build 0 where a mask is true, and the number `filtered` elsewhere."""
    b = c.build
    return b.op("Where", allowed, b.typed(0, elem_type), b.typed(filtered, elem_type))


def sum_of(c: Context, *terms: str) -> str:
    """Build the sum of the values whose name is not ""; returns "" if all names are."""
    given = [each for each in terms if each]
    total = given[0] if given else ""
    for each in given[1:]:
        total = c.build.op("Add", total, each)
    return total


def attention_output(c: Context, query: str, key: str, value: str, size: int, elem_type: int, scores: Scores) -> str:
    """Build softmax(scale * (Q @ K^T) + bias) @ V over the keys that are allowed.

    Args:
        c: collects the nodes.
        query: the name of the queries (batch, heads, queries, size).
        key: the name of the keys (batch, heads, keys, size).
        value: the name of the values (batch, heads, keys, size of values).
        size: the size of a head.
        elem_type: the type of the tensors, a TensorProto.DataType.
        scores: how the scores are scaled, biased and masked.

    Returns:
        the name of the result (batch, queries, heads * size of values).
    """
    b = c.build
    products = b.op("MatMul", query, b.op("Transpose", key, perm=[0, 1, 3, 2]))
    products = b.op("Mul", products, b.typed(scores.scale or size**-0.5, elem_type))
    if scores.softcap:
        cap = b.typed(scores.softcap, elem_type)
        products = b.op("Mul", b.op("Tanh", b.op("Div", products, cap)), cap)
    products = sum_of(c, products, scores.bias)
    if scores.allowed:
        lowest = -65504.0 if elem_type == TensorProto.FLOAT16 else float(np.finfo(np.float32).min)
        products = b.op("Where", scores.allowed, products, b.typed(lowest, elem_type))
    if scores.sink:
        # Append the sink as one more column of logits. It takes part in the softmax; its weight is dropped, as it has
        # no value.
        shape = b.op("Concat", b.op("Slice", b.op("Shape", products), b.ints(0), b.ints(3)), b.ints(1), axis=0)
        products = b.op("Concat", products, b.op("Expand", scores.sink, shape), axis=3)
    weights = b.op("Softmax", products, axis=-1)
    if scores.sink:
        weights = b.op("Slice", weights, b.ints(0), b.ints(-1), b.ints(3))
    return join_heads(c, b.op("MatMul", weights, value))
