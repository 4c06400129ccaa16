"""Attention without a cache, as MatMul, Softmax and MatMul. ONNX's Attention operator is no faster on ONNX Runtime and
OpenVINO, needs a mask for each query, and becomes many more nodes if a conversion decomposes it.
"""

from collections.abc import Sequence
from typing import Final

from triune.engine.models.builder import ModelBuilder

MASKED: Final = -10_000.0
"""The number that is added to the scores of padding, as in BERT. It is finite in every precision, so that a text
without tokens gives no NaN.
"""


def attend(
    graph: ModelBuilder, query: str, key: str, value: str, *, num_heads: int, scale: float = 1.0, added: str = ""
) -> str:
    """Build the attention of queries [batch, tokens, heads * size] to keys and values [batch, tokens, heads * size].

    Args:
        graph: the graph.
        query: the queries.
        key: the keys.
        value: the values.
        num_heads: the number of heads.
        scale: the factor of the scores.
        added: the name of a value that is added to the scores, FP32, broadcast to [batch, heads, queries, keys]; "" for
            none.
    """
    scores = scores_of(graph, query, key, num_heads=num_heads, scale=scale)
    if added:
        scores = graph.op("Add", scores, added)
    shares = graph.op("Softmax", scores, axis=-1)
    value = _by_heads(graph, value, num_heads, [0, 2, 1, 3])
    mixed = graph.op("Transpose", graph.op("MatMul", shares, value), perm=[0, 2, 1, 3])
    return graph.op("Reshape", mixed, graph.ints(0, 0, -1))


def scores_of(graph: ModelBuilder, query: str, key: str, *, num_heads: int, scale: float = 1.0) -> str:
    """The scores of attention, before the softmax: [batch, heads, queries, keys]. See `attend`."""
    query, key = _by_heads(graph, query, num_heads, [0, 2, 1, 3]), _by_heads(graph, key, num_heads, [0, 2, 3, 1])
    scores = graph.op("MatMul", query, key)
    return scores if scale == 1 else graph.op("Mul", scores, graph.scalar(scale))


def _by_heads(graph: ModelBuilder, x: str, num_heads: int, order: Sequence[int]) -> str:
    """Reshape [batch, tokens, heads * size] to [batch, tokens, heads, size], and transpose the dimensions to
    `order`.
    """
    return graph.op("Transpose", graph.op("Reshape", x, graph.ints(0, 0, num_heads, -1)), perm=list(order))


def mask_of(graph: ModelBuilder, kept: str) -> str:
    """The attention mask for padding: `kept`, FP32 [batch, tokens] of 1 for a token and 0 for padding, becomes [batch,
    1, 1, tokens] of 0 and MASKED.
    """
    ignored = graph.op("Sub", graph.scalar(1), graph.op("Unsqueeze", kept, graph.ints(1, 2)))
    return graph.op("Mul", ignored, graph.scalar(MASKED))


def steps_of(graph: ModelBuilder, x: str, axis: int = 1) -> str:
    """Build the vector 0, 1, ..., n - 1, where n is the size of an axis of `x`: INT64 [n]."""
    number = graph.op("Squeeze", graph.op("Shape", x, start=axis, end=axis + 1))
    return graph.op("Range", graph.number(0), number, graph.number(1))
