"""Fuse scaled dot-product attention into one operation."""

from collections.abc import Iterator

from onnx import NodeProto

from triune.graph.axes import positive
from triune.graph.builder import Builder
from triune.graph.fused.call import RESULT, FusedCall
from triune.graph.fused.pattern import FusePattern
from triune.graph.index import Index, perm_of
from triune.graph.match.attention import Attention, constant_factor, match_attention
from triune.graph.values import attributes_of

_SWAP_LAST = (0, 1, 3, 2)
"""The permutation that exchanges the last two of four axes."""


class FuseAttention(FusePattern):
    """Given softmax(q k^T scale + mask) v of (batch, heads, steps, width). Constants may multiply q and k as well.
    Result: `scaled_dot_product_attention`.
    """

    name = "fuse_attention"

    def calls(self, index: Index) -> Iterator[FusedCall]:
        """Yield a call for each attention in the graph."""
        for node in index.graph.node:
            candidates = (_fused(index, each) for each in match_attention(index, node))
            found = next((each for each in candidates if each is not None), None)
            if found is not None:
                yield found


def _fused(index: Index, attention: Attention) -> FusedCall | None:
    scores, values = attention.scores, attention.values
    if any(index.rank(name) != 4 for name in (scores.softmax.output[0], scores.queries, scores.keys, values)):
        return None
    if positive(int(attributes_of(scores.softmax).get("axis", -1)), 4) != 3:
        return None
    masks = [name for step in scores.masking for _, name in step.others if step.node.op_type == "Add"]
    if len(masks) != len(scores.masking) or len(masks) > 1:
        return None
    query_scale, queries = constant_factor(index, scores.queries)
    key_scale, keys = _keys(index, scores.keys)
    operands = {"query": queries, "key": keys, "value": values}
    if masks:
        operands["attn_mask"] = masks[0]
    scale = scores.scale * query_scale * key_scale
    body = _body(scale, is_masked=bool(masks), dtype=index.values.elem_type(values))
    settings = {"scale": scale, "is_causal": 0, "window_size": 0}
    return FusedCall("scaled_dot_product_attention", attention.output, operands, body, settings)


def _keys(index: Index, name: str) -> tuple[float, str]:
    """From transposed keys (batch, heads, width, steps), find a constant factor and the keys (batch, heads, steps,
    width).
    """
    scale, value = constant_factor(index, name)
    transpose = index.producer(value, "Transpose")
    if transpose is None:
        return scale, index.build.op("Transpose", value, perm=list(_SWAP_LAST))
    perm = [perm_of(transpose, 4)[axis] for axis in _SWAP_LAST]
    inner, keys = constant_factor(index, transpose.input[0])
    if perm == [0, 1, 2, 3]:
        return scale * inner, keys
    return scale * inner, index.build.op("Transpose", keys, perm=perm)


def _body(scale: float, *, is_masked: bool, dtype: int) -> list[NodeProto]:
    body = Builder("body")
    transposed = body.op("Transpose", "key", perm=list(_SWAP_LAST))
    factor = body.cast(body.constant(scale, "float32"), dtype)
    scores = body.op("MatMul", body.op("Mul", "query", factor), transposed)
    if is_masked:
        scores = body.op("Add", scores, "attn_mask")
    body.put("MatMul", [body.op("Softmax", scores, axis=-1), "value"], [RESULT])
    return body.nodes
