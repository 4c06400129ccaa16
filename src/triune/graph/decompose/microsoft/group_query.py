"""GroupQueryAttention of com.microsoft, the form of attention in which exporters write language models."""

import numpy as np
from onnx import TensorProto

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.decompose.microsoft.attention import Scores, attention_output, repeat_heads, split_heads
from triune.graph.decompose.microsoft.rotary import at_positions, rotated


def _refuse_others(c: Context) -> None:
    """Raises Refusal if the node uses something that this decomposition or ONNX Runtime's CPU kernels do not
    support.
    """
    flags = c.attributes
    if (
        any(flags.get(name, "NONE") != "NONE" for name in ("k_quant_type", "v_quant_type"))
        or c.input(12)
        or c.input(13)
    ):
        raise Refusal("its cache of keys and values is quantized; export the model with a cache of floats")
    if flags.get("sliding_window_cache", 0):
        raise Refusal("its cache is a ring buffer, so that keys have no fixed positions; export it without that")
    if c.input(14) or c.input(15):
        raise Refusal("it normalizes queries and keys itself; export the model with the norms as operators")
    if c.input(16):
        raise Refusal("its sequences have lengths of their own (query_seqlens); export the model without them")
    if c.is_read(3) and flags.get("qk_output", 0):
        raise Refusal("its scores are read (output 3); export the model without them")


def group_query_attention(c: Context) -> bool:
    """GroupQueryAttention: several query heads share one head of keys and values, with a cache of both.

    The cache may be longer than the keys in it. The length of the next cache depends on the length of the cache, the
    number of queries and `total_sequence_length`, so these must be known. `seqlens_k` (batch) is the number of each
    row's keys, less 1.
    """
    _refuse_others(c)
    sizes = _sizes(c)
    if sizes is None:
        return False
    num_queries, num_past, total = sizes
    b, flags = c.build, c.attributes
    heads, key_heads, elem_type = flags["num_heads"], flags["kv_num_heads"], c.values.elem_type(c.input(0))
    parts = _parts(c, heads, key_heads)
    shape = c.values.shape(c.input(0))
    if parts is None or shape is None or shape[2] is None or not elem_type:
        return False
    query, key, value = parts
    size = shape[2] // (heads if c.input(1) else heads + 2 * key_heads)
    # The number of keys before the queries, (batch, 1): 0 in the first call, else a number for each row of the batch.
    lengths = b.op("Reshape", b.cast(c.input(5), TensorProto.INT64), b.ints(-1, 1))
    is_first = num_queries == total
    past = b.op("Sub", lengths, lengths) if is_first else b.op("Sub", lengths, b.ints(num_queries - 1))
    positions = b.op("Add", past, b.constant(np.arange(num_queries)[None], np.int64))
    if flags.get("do_rotary", 0):
        at = positions
        if c.input(9):
            # In the first call ONNX Runtime reads only the very first position id, and counts up from it for all rows.
            first = b.op("Slice", c.input(9), b.ints(0, 0), b.ints(1, 1), b.ints(0, 1))
            at = b.op("Add", first, positions) if is_first else c.input(9)
        cos, sin = (at_positions(c, c.input(index), at) for index in (7, 8))
        cache = c.values.shape(c.input(7))
        if cache is None or cache[1] is None:
            return False
        width = 0 if 2 * cache[1] == size else 2 * cache[1]
        interleaved = bool(flags.get("rotary_interleaved", 0))
        query, key = (rotated(c, each, cos, sin, width, is_interleaved=interleaved) for each in (query, key))
    num_keys = max(num_past, total)
    keys = b.constant(np.arange(num_keys)[None], np.int64)
    if not (is_first and num_keys == num_queries):
        key, value = (
            _cached(c, c.input(index), new, past, keys, (num_queries, num_past, num_keys))
            for index, new in ((3, key), (4, value))
        )
    c.give(key, 1)
    c.give(value, 2)
    times = heads // key_heads
    scores = Scores(
        scale=flags.get("scale", 0.0),
        softcap=flags.get("softcap", 0.0),
        bias=_bias(c, num_keys),
        allowed=_allowed(c, positions, num_keys),
        sink=_sink(c, heads, elem_type),
    )
    key, value = repeat_heads(c, key, times), repeat_heads(c, value, times)
    c.give(attention_output(c, query, key, value, size, elem_type, scores))
    return True


def _sizes(c: Context) -> tuple[int, int, int] | None:
    """The number of queries, the length of the cache, and the number of keys including the new ones.

    Raises:
        Refusal: one of them is computed while the model runs.
    """
    query, past = c.values.shape(c.input(0)), c.values.shape(c.input(3)) if c.input(3) else (0, 0, 0, 0)
    total = c.values.constant(c.input(6))
    if query is None or past is None:
        return None
    if total is None or query[1] is None or past[2] is None:
        raise Refusal(
            "the length of its next cache depends on total_sequence_length, the number of tokens and the length of the "
            "cache; fix them with --shape, and total_sequence_length with --constant where it is an input"
        )
    return query[1], past[2], int(total.reshape(-1)[0])


def _parts(c: Context, heads: int, key_heads: int) -> tuple[str, str, str] | None:
    """Build query, key and value (batch, heads, n, size); None if a shape is not known."""
    b = c.build
    if c.input(1):
        pieces = [c.input(0), c.input(1), c.input(2)]
    else:
        shape = c.values.shape(c.input(0))
        if shape is None or shape[2] is None:
            return None
        size = shape[2] // (heads + 2 * key_heads)
        pieces = b.ops("Split", 3, c.input(0), b.ints(heads * size, key_heads * size, key_heads * size), axis=2)
    query, key, value = (
        split_heads(c, piece, count) for piece, count in zip(pieces, (heads, key_heads, key_heads), strict=True)
    )
    return query, key, value


def _cached(c: Context, cache: str, new: str, past: str, keys: str, sizes: tuple[int, int, int]) -> str:
    """Build the next cache of keys or values: the cached ones, then the new ones, then zeros.

    `past` (batch, 1) is the number of cached keys, `keys` (1, keys) has the positions in the next cache. `sizes` are
    the number of new keys, and the lengths of the cache and of the next cache.
    """
    b, (num_new, num_past, num_keys) = c.build, sizes
    joined = b.op("Concat", cache, new, axis=2) if cache and num_past else new
    # `source` has, for each position of the next cache, the index into `joined`. Positions without a key read index 0,
    # and become 0 below.
    is_old, is_known = b.op("Less", keys, past), b.op("Less", keys, b.op("Add", past, b.ints(num_new)))
    behind = b.op("Add", b.op("Sub", keys, past), b.ints(num_past if cache else 0))
    zero = b.constant(0, np.int64)
    source = b.op("Where", is_old, keys, b.op("Where", is_known, behind, zero))
    shape = b.op("Shape", new)
    target = b.op(
        "Concat",
        b.op("Slice", shape, b.ints(0), b.ints(2)),
        b.ints(num_keys),
        b.op("Slice", shape, b.ints(3), b.ints(4)),
        axis=0,
    )
    index = b.op("Expand", b.op("Unsqueeze", source, b.ints(1, 3)), target)
    found = b.op("GatherElements", joined, index, axis=2)
    empty = b.typed(0, c.values.elem_type(c.input(0)))
    return b.op("Where", b.op("Unsqueeze", is_known, b.ints(1, 3)), found, empty)


def _allowed(c: Context, positions: str, num_keys: int) -> str:
    """Build BOOL (batch, 1, queries, keys), true for keys up to the query's position and within its window."""
    b, window = c.build, c.attributes.get("local_window_size", -1)
    own = b.op("Unsqueeze", positions, b.ints(1, 3))
    keys = b.constant(np.arange(num_keys).reshape(1, 1, 1, -1), np.int64)
    if not c.attributes.get("causal", 1):
        raise Refusal("it is not causal; export it as MultiHeadAttention")
    seen = b.op("LessOrEqual", keys, own)
    if window > 0:
        seen = b.op("And", seen, b.op("Greater", keys, b.op("Sub", own, b.ints(window))))
    return seen


def _bias(c: Context, num_keys: int) -> str:
    """Build `attention_bias`, cut to the number of keys; "" if there is none."""
    b = c.build
    if not c.input(10):
        return ""
    return b.op("Slice", c.input(10), b.ints(0), b.ints(num_keys), b.ints(3))


def _sink(c: Context, heads: int, elem_type: int) -> str:
    """Build the logit of the attention sink, a key without a value: the node's input 11, or 0 if the attribute
    `smooth_softmax` is 1; shape (1, heads, 1, 1). Returns its name; "" if there is no sink.
    """
    if c.input(11):
        return c.build.op("Reshape", c.input(11), c.build.ints(1, heads, 1, 1))
    if c.attributes.get("smooth_softmax", 0) == 1:
        return c.build.typed(np.zeros((1, heads, 1, 1)), elem_type)
    return ""


TABLE: dict[str, Decomposition] = {"GroupQueryAttention": group_query_attention}
