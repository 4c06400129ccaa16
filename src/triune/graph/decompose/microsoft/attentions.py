"""Decompose Attention, QAttention and MultiHeadAttention of com.microsoft."""

from dataclasses import replace

import numpy as np
from onnx import TensorProto

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.decompose.integers import minus_zero_point, weight_minus_zero_point
from triune.graph.decompose.microsoft.attention import (
    Scores,
    attention_output,
    causal,
    mask_as_bias,
    range_of,
    size_of,
    split_heads,
    sum_of,
)
from triune.graph.decompose.microsoft.quantized_products import scaled

_FILTERED = -10000.0
"""The number that ONNX Runtime adds to the scores of masked keys."""

_BUFFERS = "its cache of keys and values is a buffer longer than its content; export the model without that"


def _mask(c: Context, name: str, batch: str, num_keys: str) -> str | None:
    """Build the mask as a BOOL that broadcasts to (batch, heads, queries, keys); None if its shape is not known.

    A mask (batch, keys) or (batch, queries, keys) has 1 at keys that are attended to. A mask (batch,) has the number of
    these keys in each row. A mask (2 * batch,) has the end of each row's keys, then the start of each row's keys.
    `batch` and `num_keys` are INT64 (1,).
    """
    b, shape = c.build, c.values.shape(name)
    if shape is None:
        return None
    if len(shape) == 2:
        seen = b.op("Greater", b.cast(name, TensorProto.INT32), b.constant(0, np.int32))
        return b.op("Unsqueeze", seen, b.ints(1, 2))
    if len(shape) == 3:
        seen = b.op("Greater", b.cast(name, TensorProto.INT32), b.constant(0, np.int32))
        return b.op("Unsqueeze", seen, b.ints(1))
    if len(shape) != 1:
        raise Refusal(f"its mask has {len(shape)} dimensions, for which ONNX Runtime's CPU kernels have no meaning")
    keys = range_of(c, num_keys)
    size, batch_size = shape[0], _batch_size(c)
    if size is None or batch_size is None:
        return None
    if size not in (batch_size, 2 * batch_size):
        raise Refusal("its mask counts the tokens of packed sequences, which ONNX Runtime's CPU kernels do not take")
    numbers = b.cast(name, TensorProto.INT64)
    ends = b.op("Slice", numbers, b.ints(0), b.ints(batch_size), b.ints(0))
    seen = b.op("Less", keys, b.op("Reshape", ends, b.ints(-1, 1, 1, 1)))
    if size == 2 * batch_size:
        starts = b.op("Slice", numbers, b.ints(batch_size), b.ints(size), b.ints(0))
        seen = b.op("And", seen, b.op("GreaterOrEqual", keys, b.op("Reshape", starts, b.ints(-1, 1, 1, 1))))
    return seen


def _batch_size(c: Context) -> int | None:
    shape = c.values.shape(c.input(0))
    return None if not shape else shape[0]


def _self_attention(
    c: Context, packed: str, elem_type: int, widths: tuple[int, int, int], mask: str, past: str, bias: str
) -> bool:
    """Build the attention of queries, keys and values that are one tensor (batch, n, sum of widths) of `elem_type`.

    `past` has the cached keys and values, (2, batch, heads, n, size).
    """
    b, flags = c.build, c.attributes
    heads = flags["num_heads"]
    if flags.get("past_present_share_buffer", 0):
        raise Refusal(_BUFFERS)
    if flags.get("do_rotary", 0):
        raise Refusal("it rotates queries and keys (do_rotary), which ONNX Runtime's CPU kernels do not do")
    parts = b.ops("Split", 3, packed, b.ints(*widths), axis=2)
    query, key, value = (split_heads(c, part, heads) for part in parts)
    if past:
        before = [b.op("Gather", past, b.constant(position, np.int64), axis=0) for position in (0, 1)]
        key, value = (b.op("Concat", old, new, axis=2) for old, new in zip(before, (key, value), strict=True))
    if c.output(1):
        c.give(b.op("Concat", *(b.op("Unsqueeze", each, b.ints(0)) for each in (key, value)), axis=0), 1)
    num_keys = size_of(c, key, 2)
    masked = _mask(c, mask, size_of(c, query, 0), num_keys) if mask else ""
    if masked is None:
        return False
    filtered = flags.get("mask_filter_value", _FILTERED)
    if masked:
        bias = sum_of(c, mask_as_bias(c, masked, filtered, elem_type), bias)
    scores = Scores(scale=flags.get("scale", 0.0), bias=bias)
    if flags.get("unidirectional", 0):
        num_queries = size_of(c, query, 2)
        scores = replace(scores, allowed=causal(c, num_queries, num_keys, b.op("Sub", num_keys, num_queries)))
    c.give(attention_output(c, query, key, value, widths[0] // heads, elem_type, scores))
    return True


def _widths(c: Context, weights: int) -> tuple[int, int, int] | None:
    """The sizes of the last axes of queries, keys and values, with all heads; None if they are not known."""
    given = c.attributes.get("qkv_hidden_sizes")
    if given:
        return given[0], given[1], given[2]
    shape = c.values.shape(c.input(weights))
    if shape is None or shape[1] is None:
        return None
    return shape[1] // 3, shape[1] // 3, shape[1] // 3


def attention(c: Context) -> bool:
    """Attention: queries, keys and values are one matrix product, of the input and the weights of all three."""
    b, widths, elem_type = c.build, _widths(c, 1), c.values.elem_type(c.input(1))
    if widths is None or not elem_type:
        return False
    if c.input(6):
        raise Refusal(_BUFFERS)
    packed = sum_of(c, b.op("MatMul", c.input(0), c.input(1)), c.input(2))
    return _self_attention(c, packed, elem_type, widths, c.input(3), c.input(4), c.input(5))


def q_attention(c: Context) -> bool:
    """QAttention: Attention with quantized input and weights; queries, keys and values have the type of the scales."""
    b, widths, elem_type = c.build, _widths(c, 1), c.values.elem_type(c.input(3))
    if widths is None or not elem_type:
        return False
    product = b.op(
        "MatMul", minus_zero_point(c, c.input(0), c.input(6)), weight_minus_zero_point(c, c.input(1), c.input(7), -1)
    )
    packed = b.cast(scaled(c, product, c.input(3), c.input(4), c.input(2)), elem_type)
    return _self_attention(c, packed, elem_type, widths, c.input(5), c.input(8), "")


def multi_head_attention(c: Context) -> bool:
    """MultiHeadAttention: queries, keys and values are inputs, three tensors or one."""
    b, flags, rank = c.build, c.attributes, c.values.rank(c.input(0))
    elem_type, shape = c.values.elem_type(c.input(0)), c.values.shape(c.input(0))
    if rank is None or not elem_type or shape is None or shape[-1] is None:
        return False
    if c.input(8) or c.input(9):
        raise Refusal(_BUFFERS)
    if c.is_read(3):
        raise Refusal("its scores are read (output 3), which only ONNX's own Attention gives")
    heads = flags["num_heads"]
    size = shape[-1] if rank == 5 else shape[-1] // heads
    parts = _parts(c, rank, heads)
    if parts is None:
        return False
    query, key, value = parts
    if c.input(6):
        key = b.op("Concat", c.input(6), key, axis=2)
        value = b.op("Concat", c.input(7), value, axis=2)
    c.give(key, 1)
    c.give(value, 2)
    num_keys = size_of(c, key, 2)
    masked = _mask(c, c.input(4), size_of(c, query, 0), num_keys) if c.input(4) else ""
    if masked is None:
        return False
    bias = c.input(5)
    if masked:
        bias = sum_of(c, mask_as_bias(c, masked, flags.get("mask_filter_value", _FILTERED), elem_type), bias)
    scores = Scores(scale=flags.get("scale", 0.0), bias=bias)
    if flags.get("unidirectional", 0):
        num_past = size_of(c, c.input(6), 2) if c.input(6) else b.ints(0)
        scores = replace(scores, allowed=causal(c, size_of(c, query, 2), num_keys, num_past))
    c.give(attention_output(c, query, key, value, size, elem_type, scores))
    return True


def _parts(c: Context, rank: int, heads: int) -> tuple[str, str, str] | None:
    """Build query, key and value (batch, heads, n, size), with their biases added; None if a shape is not known."""
    b = c.build
    if rank == 5:
        # The input is (batch, n, heads, 3, size), the bias (3 * heads * size).
        pieces = [b.op("Gather", c.input(0), b.constant(position, np.int64), axis=3) for position in range(3)]
        if c.input(3):
            biases = b.op("Reshape", c.input(3), b.ints(3, heads, -1))
            own = [b.op("Gather", biases, b.constant(position, np.int64), axis=0) for position in range(3)]
            pieces = [b.op("Add", piece, bias) for piece, bias in zip(pieces, own, strict=True)]
        query, key, value = (b.op("Transpose", piece, perm=[0, 2, 1, 3]) for piece in pieces)
        return query, key, value
    key_rank = c.values.rank(c.input(1))
    biases = ["", "", ""]
    if c.input(3):
        query_shape, total = c.values.shape(c.input(0)), c.values.shape(c.input(3))
        if query_shape is None or query_shape[-1] is None or total is None or total[0] is None:
            return None
        width = query_shape[-1]
        biases = b.ops("Split", 3, c.input(3), b.ints(width, width, total[0] - 2 * width), axis=0)
    query = split_heads(c, sum_of(c, c.input(0), biases[0]), heads)
    if key_rank == 5:
        # Keys and values are one input (batch, n, heads, 2, size).
        pieces = [b.op("Gather", c.input(1), b.constant(position, np.int64), axis=3) for position in (0, 1)]
        key, value = (b.op("Transpose", piece, perm=[0, 2, 1, 3]) for piece in pieces)
    elif key_rank == 4:
        # Keys and values have the shape (batch, heads, n, size) already, so they are not reshaped.
        key, value = c.input(1), c.input(2)
    elif key_rank == 3:
        key = split_heads(c, sum_of(c, c.input(1), biases[1]), heads)
        value = split_heads(c, sum_of(c, c.input(2), biases[2]), heads)
    else:
        return None
    return query, key, value


TABLE: dict[str, Decomposition] = {
    "Attention": attention,
    "QAttention": q_attention,
    "MultiHeadAttention": multi_head_attention,
}
