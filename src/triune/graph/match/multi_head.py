"""Match multi-head attention: heads are split from the channels of (B, S, C), and their results merged to (B, Q, C)."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from triune.graph.axes import positive
from triune.graph.index import Index, perm_of, same_sizes
from triune.graph.match.attention import Attention, match_scores
from triune.graph.match.channels import IsSource, Split, read_heads, trace
from triune.graph.match.no_match import NoMatchError
from triune.graph.values import attributes_of


@dataclass(frozen=True, slots=True)
class MultiHeadAttention:
    """An attention whose queries (B, heads, Q, width) are split from the channels of a value (B, S, C).

    Attributes:
        attention: the attention of all heads at once.
        queries: which channels each head's queries are made of.
        keys: which channels each head's keys are made of; in grouped-query attention several heads share them.
        values: which channels each head's values are made of; in grouped-query attention several heads share them.
        num_heads: the number of heads.
        merge: the Transpose and the Reshape from (B, heads, Q, width) to (B, Q, C).
    """

    attention: Attention
    queries: Split
    keys: Split
    values: Split
    num_heads: int
    merge: tuple[NodeProto, NodeProto]

    @property
    def softmax(self) -> NodeProto:
        """The Softmax over the scores."""
        return self.attention.scores.softmax

    @property
    def output(self) -> NodeProto:
        """The Reshape that gives (B, Q, C)."""
        return self.merge[1]

    @property
    def nodes(self) -> Sequence[NodeProto]:
        """All nodes from the product of queries and keys to the Reshape that gives the result, in order."""
        return [*self.attention.nodes, *self.merge]


def match_multi_head(index: Index, softmax: NodeProto, is_source: IsSource) -> MultiHeadAttention | None:
    """The multi-head attention to which a Softmax belongs.

    Returns:
        the match; None if the operand of the Softmax is not a product of two values that are not constants.

    Raises:
        NoMatchError: it is such a product, but the nodes around it do not fit the pattern.
    """
    computed = (
        each
        for each in match_scores(index, softmax)
        if not index.is_constant(each.queries) and not index.is_constant(each.keys)
    )
    scores = next(computed, None)
    if scores is None:
        return None
    shares = softmax.output[0]
    product = next((node for node in index.readers(shares) if node.op_type == "MatMul"), None)
    if product is None or product.input[0] != shares:
        readers = ", ".join(sorted({node.op_type for node in index.readers(shares)})) or "no node"
        raise NoMatchError(f"its result is not multiplied with values, but read by {readers}")
    rank = index.rank(shares)
    if rank != 4 or positive(int(attributes_of(softmax).get("axis", -1)), 4) != 3:
        raise NoMatchError(f"its scores are not (B, heads, Q, K) with the Softmax over K, but of rank {rank}")
    for node in scores.nodes:
        if index.only_reader(node.output[0]) is None:
            raise NoMatchError(f"'{node.output[0]}' is read elsewhere too")
    attention = Attention(scores, product.input[1], product)
    q, k, v = (trace(index, is_source, name) for name in (scores.queries, scores.keys, attention.values))
    queries, keys, values = q and read_heads(q), k and read_heads(k, is_transposed=True), v and read_heads(v)
    if queries is None or keys is None or values is None:
        raise NoMatchError("its heads are not made of the channels of a value (B, S, C)")
    if not queries.num_heads == keys.num_heads == values.num_heads or queries.width != keys.width:
        raise NoMatchError("its queries, keys and values differ in their heads")
    merge = match_merged_heads(index, product)
    dims, result = (index.dims(node.output[0]) for node in merge)
    if dims is None or not same_sizes((*dims[:2], queries.num_heads * values.width), result):
        raise NoMatchError("its heads are not merged to (B, S, C)")
    return MultiHeadAttention(attention, queries, keys, values, queries.num_heads, merge)


def match_merged_heads(index: Index, product: NodeProto) -> tuple[NodeProto, NodeProto]:
    """The Transpose and the Reshape that merge the result (B, heads, S, width) of a MatMul to (B, S, C).

    Raises:
        NoMatchError: other nodes follow the product.
    """
    transpose = index.only_reader(product.output[0])
    if transpose is None or transpose.op_type != "Transpose" or perm_of(transpose, 4) != (0, 2, 1, 3):
        raise NoMatchError("its result is not transposed to (B, S, heads, width)")
    reshape = index.only_reader(transpose.output[0])
    if reshape is None or reshape.op_type != "Reshape":
        raise NoMatchError("its heads are not merged to (B, S, C)")
    return transpose, reshape
