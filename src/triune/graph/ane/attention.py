"""Attention as exporters write it: MatMul, a scale, masks, Softmax, MatMul."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from triune.graph.ane.borders import Borders
from triune.graph.ane.heads import Split, split, trace
from triune.graph.ane.index import Index, perm_of, same_sizes
from triune.graph.axes import positive
from triune.graph.values import attributes_of


class NoAttentionError(Exception):
    """This Softmax is none of an attention that can be split; says why. Never leaves the pass."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What happens to the scores (B, heads, Q, K) before the Softmax.

    Attributes:
        node: Mul, Div, Add or Where.
        place: which of its operands are the scores.
    """

    node: NodeProto
    place: int

    @property
    def others(self) -> Sequence[tuple[int, str]]:
        """The operands that are not the scores, with their places."""
        return [(place, name) for place, name in enumerate(self.node.input) if place != self.place]


@dataclass(frozen=True, slots=True)
class Attention:
    """An attention of `num_heads` heads.

    Attributes:
        queries: where they come from.
        keys: likewise.
        values: likewise.
        num_heads: how many.
        stages: between the first product and the Softmax, in order.
        softmax: the Softmax.
        last: the Reshape that gives (B, S, C).
    """

    queries: Split
    keys: Split
    values: Split
    num_heads: int
    stages: tuple[Stage, ...]
    softmax: NodeProto
    last: NodeProto


def find(index: Index, borders: Borders, softmax: NodeProto) -> Attention | None:
    """The attention to which a Softmax belongs.

    Returns:
        None if it belongs to none.

    Raises:
        NoAttentionError: it does, but of a form that is not known here.
    """
    scores = _scores(index, softmax.input[0])
    mix = next((node for node in index.readers(softmax.output[0]) if node.op_type == "MatMul"), None)
    if scores is None:
        return None
    if mix is None or mix.input[0] != softmax.output[0]:
        readers = ", ".join(sorted({node.op_type for node in index.readers(softmax.output[0])})) or "no node"
        raise NoAttentionError(f"its shares are not multiplied with values, but read by {readers}")
    product, stages = scores
    rank = index.rank(softmax.output[0])
    if rank != 4 or positive(int(attributes_of(softmax).get("axis", -1)), 4) != 3:
        raise NoAttentionError(f"its scores are not (B, heads, Q, K) but of rank {rank}")
    for node in (product, *(stage.node for stage in stages), softmax):
        if index.only_reader(node.output[0]) is None:
            raise NoAttentionError(f"'{node.output[0]}' is read elsewhere too")
    q, k, v = (trace(index, borders, name) for name in (*product.input, mix.input[1]))
    queries, keys, values = q and split(q), k and split(k, is_turned=True), v and split(v)
    if queries is None or keys is None or values is None:
        raise NoAttentionError("its heads are not made of the channels of a value (B, S, C)")
    if not queries.num_heads == keys.num_heads == values.num_heads or queries.width != keys.width:
        raise NoAttentionError("its queries, keys and values differ in their heads")
    last = _last(index, mix, queries.num_heads * values.width)
    is_near = any(borders.is_out(each.heads.source) for each in (queries, keys, values))
    if not is_near and not borders.is_entered(last.output[0]):
        raise NoAttentionError("nothing before or behind it is in the layout")
    return Attention(queries, keys, values, queries.num_heads, stages, softmax, last)


def _scores(index: Index, name: str) -> tuple[NodeProto, tuple[Stage, ...]] | None:
    """The product of which the scores are, and the stages since."""
    node = index.maker(name, "MatMul", "Mul", "Div", "Add", "Where")
    if node is None:
        return None
    if node.op_type == "MatMul":
        return (node, ()) if all(not index.is_constant(each) for each in node.input) else None
    if node.op_type in ("Mul", "Div"):
        places = [place for place in (0, 1) if index.scalar(node.input[1 - place]) is not None]
        places = places if node.op_type == "Mul" else [place for place in places if place == 0]
    else:
        places = [0, 1] if node.op_type == "Add" else [1, 2]
    for place in places:
        found = _scores(index, node.input[place])
        if found is not None:
            return found[0], (*found[1], Stage(node, place))
    return None


def _last(index: Index, mix: NodeProto, width: int) -> NodeProto:
    """The Reshape that puts the heads (B, heads, S, width) side by side again."""
    turn = index.only_reader(mix.output[0])
    if turn is None or turn.op_type != "Transpose" or perm_of(turn, 4) != (0, 2, 1, 3):
        raise NoAttentionError("its result is not turned back to (B, S, heads, width)")
    last = index.only_reader(turn.output[0])
    dims = index.dims(turn.output[0])
    result = index.dims(last.output[0]) if last is not None and last.op_type == "Reshape" else None
    if last is None or dims is None or result is None or not same_sizes((*dims[:2], width), result):
        raise NoAttentionError("its heads are not put side by side as (B, S, C)")
    return last
