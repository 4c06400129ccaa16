"""RotaryEmbedding of com.microsoft: pairs of features are rotated by angles that grow with a token's position."""

import numpy as np
from onnx import TensorProto

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.decompose.microsoft.attention import join_heads, range_of, size_of, split_heads


def rotated(c: Context, x: str, cos: str, sin: str, width: int, *, is_interleaved: bool) -> str:
    """Rotate each pair (p, q) of features of each head to (p * cos - q * sin, q * cos + p * sin).

    Args:
        c: collects the nodes.
        x: the name of the heads (batch, heads, n, size).
        cos: the name of the cosines for each position, (batch or 1, 1, n, width / 2).
        sin: the name of the sines, of the same shape.
        width: how many features, from the first on, are rotated; 0 for all.
        is_interleaved: pairs are (x[2i], x[2i + 1]); else (x[i], x[i + width / 2]).
    """
    b = c.build
    rest = ""
    if width:
        end = b.ints(np.iinfo(np.int64).max)
        x, rest = b.op("Slice", x, b.ints(0), b.ints(width), b.ints(3)), b.op("Slice", x, b.ints(width), end, b.ints(3))
    if is_interleaved:
        end = b.ints(np.iinfo(np.int64).max)
        halves = [b.op("Slice", x, b.ints(start), end, b.ints(3), b.ints(2)) for start in (0, 1)]
    else:
        halves = b.ops("Split", 2, x, axis=3, num_outputs=2)
    first = b.op("Sub", b.op("Mul", halves[0], cos), b.op("Mul", halves[1], sin))
    second = b.op("Add", b.op("Mul", halves[1], cos), b.op("Mul", halves[0], sin))
    if is_interleaved:
        pairs = [b.op("Unsqueeze", each, b.ints(4)) for each in (first, second)]
        result = b.op("Reshape", b.op("Concat", *pairs, axis=4), b.ints(0, 0, 0, -1))
    else:
        result = b.op("Concat", first, second, axis=3)
    return b.op("Concat", result, rest, axis=3) if rest else result


def at_positions(c: Context, cache: str, positions: str) -> str:
    """Build (batch, 1, n, width / 2), the rows of the table `cache` (all positions, width / 2) at INT64 `positions`
    (batch, n).
    """
    return c.build.op("Unsqueeze", c.build.op("Gather", cache, positions), c.build.ints(1))


def rotary_embedding(c: Context) -> bool:
    """RotaryEmbedding: there is a position id for each token, or only one for the first token, from which ids count
    up.
    """
    b, flags = c.build, c.attributes
    shape, cache = c.values.shape(c.input(0)), c.values.shape(c.input(2))
    at_shape = c.values.shape(c.input(1))
    if shape is None or cache is None or cache[1] is None or at_shape is None:
        return False
    if flags.get("is_packed_batching", 0):
        raise Refusal("it takes packed sequences, which ONNX Runtime's CPU kernels do not")
    is_flat, heads = len(shape) == 3, flags.get("num_heads", 0)
    width = flags.get("rotary_embedding_dim", 0)
    if is_flat and not heads:
        if width or shape[2] is None:
            return False
        heads = shape[2] // (2 * cache[1])
    x = split_heads(c, c.input(0), heads) if is_flat else c.input(0)
    if len(at_shape) == 1:
        start = b.cast(c.input(1), TensorProto.INT64)
        positions = b.op("Unsqueeze", range_of(c, size_of(c, x, 2), start), b.ints(0))
    else:
        positions = c.input(1)
    cos, sin = (at_positions(c, c.input(index), positions) for index in (2, 3))
    result = rotated(c, x, cos, sin, width, is_interleaved=bool(flags.get("interleaved", 0)))
    c.give(join_heads(c, result) if is_flat else result)
    return True


TABLE: dict[str, Decomposition] = {"RotaryEmbedding": rotary_embedding}
