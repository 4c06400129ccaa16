"""Which nodes fp16 cannot compute: their constants, or what they make, are not within its range."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from triune.graph.half.back import of_given, scaled_back
from triune.graph.half.between import between
from triune.graph.half.bounds import Bounds
from triune.graph.half.exact import exact_makers
from triune.graph.half.given_out import integer_makers
from triune.graph.half.levels import level_makers, output_makers, scale_partners
from triune.graph.half.makers import Makers
from triune.graph.half.partners import score_makers, square_partners, variance_makers
from triune.graph.half.ranges import NONE, WIDE_INTEGERS, Range, Ranges, within
from triune.graph.half.reach import Reach
from triune.graph.half.rules import Look
from triune.graph.half.small import guarded_makers, small_makers
from triune.graph.values import Values, subgraphs_of


@dataclass(frozen=True, slots=True)
class Kept:
    """A node that is to compute in fp32.

    Attributes:
        value: the first result of the node, by whose name it is known.
        name: the node's own.
        op_type: its operator.
        reason: why, to be shown to a user; empty for one that only follows another.
    """

    value: str
    name: str
    op_type: str
    reason: str


def find_wide(graph: GraphProto, softmaxes: Collection[str] = ()) -> list[Kept]:
    """The nodes that are to compute in fp32, those of graphs within nodes too.

    Args:
        graph: normalized and narrowed.
        softmaxes: the results of those whose masks fp16 does not hold.
    """
    return _Search(softmaxes).search(graph, None, None, None, {})


class _Search:
    def __init__(self, softmaxes: Collection[str]) -> None:
        self._softmaxes = softmaxes

    def search(
        self,
        graph: GraphProto,
        values: Values | None,
        bounds: Bounds | None,
        reach: Reach | None,
        outer: Mapping[str, Ranges],
    ) -> list[Kept]:
        is_within = values is not None
        values = Values(graph, values)
        bounds, reach = Bounds(values, bounds), Reach(values, reach)
        makers = Makers(graph, values, bounds, is_within=is_within)
        ranges = dict(outer)
        if not outer:
            ranges.update(_of_integers(graph))
        kept: dict[str, Kept] = {}
        inner: list[Kept] = []
        for node in graph.node:
            for subgraph in subgraphs_of(node):
                inner += self.search(subgraph, values, bounds, reach, ranges)
            bounds.learn(node)
            reach.learn(node)
            look = Look(node, values, bounds, reach, ranges, makers)
            found, reason, is_kept = look.look()
            ranges.update((name, within(found, bounds.of(name))) for name in node.output if name)
            if first_result(node) in self._softmaxes:
                is_kept, reason = True, reason or "its masks are beyond fp16"
            if is_kept:
                kept[first_result(node)] = _kept(node, reason)
        self._add_makers(graph, makers, ranges, kept)
        for node in between(graph, values, kept):
            kept.setdefault(first_result(node), _kept(node, ""))
        return [*kept.values(), *inner]

    def _add_makers(
        self, graph: GraphProto, makers: Makers, ranges: Mapping[str, Ranges], kept: dict[str, Kept]
    ) -> None:
        """Keep what makes the operands of nodes to which more than fp16 counts."""
        for value in graph.output if not makers.is_within else ():
            for maker in integer_makers(value.name, makers):
                kept.setdefault(first_result(maker), _kept(maker, "fp16 does not hold all whole numbers"))
        for value in graph.output:
            for maker in of_given(value.name, makers) or ():
                kept.setdefault(first_result(maker), _kept(maker, "its results may be beyond fp16"))
        for node in graph.node:
            for maker in exact_makers(node, makers):
                kept.setdefault(first_result(maker), _kept(maker, "fp16 is not exact enough"))
            for maker in small_makers(node, makers):
                kept.setdefault(first_result(maker), _kept(maker, "it counts how small its numbers are"))
            for maker in variance_makers(node, makers):
                kept.setdefault(first_result(maker), _kept(maker, "fp16 is not exact enough"))
            for maker in scaled_back(node, makers):
                kept.setdefault(first_result(maker), _kept(maker, "beyond fp16 until it is scaled back"))
            for maker in level_makers(node, makers):
                kept.setdefault(first_result(maker), _kept(maker, "fp16 is not exact enough for its scale"))
            for maker in output_makers(node, makers):
                kept.setdefault(first_result(maker), _kept(maker, "fp16 is not exact enough for its levels"))
            if node.op_type in ("Mul", "Div") and any(Range.WHOLE in ranges.get(name, NONE) for name in node.input):
                for maker in scale_partners(node, makers):
                    kept.setdefault(first_result(maker), _kept(maker, ""))
            if node.op_type == "Log" and first_result(node) in kept:
                for maker in guarded_makers(node, makers):
                    kept.setdefault(first_result(maker), _kept(maker, ""))
            if node.op_type == "Softmax" and first_result(node) in kept:
                for maker in score_makers(node, makers):
                    kept.setdefault(first_result(maker), _kept(maker, ""))
            if node.op_type in ("Add", "Sub") and Range.SQUARE in ranges.get(node.output[0], NONE):
                for maker in square_partners(node, makers):
                    kept.setdefault(first_result(maker), _kept(maker, ""))


def _of_integers(graph: GraphProto) -> dict[str, Ranges]:
    """Whole numbers that the user gives may be beyond fp16: numbers of seconds, prices, hashes."""
    wide = [value.name for value in graph.input if value.type.tensor_type.elem_type in WIDE_INTEGERS]
    return dict.fromkeys(wide, frozenset([Range.LARGE]))


def first_result(node: NodeProto) -> str:
    """The name by which a node is known: names of nodes need not differ, those of results do."""
    return next((name for name in node.output if name), "")


def _kept(node: NodeProto, reason: str) -> Kept:
    return Kept(first_result(node), node.name or first_result(node), node.op_type, reason)


def told(kept: Collection[Kept]) -> list[str]:
    """What a user is told of it: one note, the first nodes by name."""
    first = [each for each in kept if each.reason]
    if not first:
        return []
    shown = [f"{each.op_type} '{each.name}' ({each.reason})" for each in first[:4]]
    more = f", and {len(first) - len(shown)} more" if len(first) > len(shown) else ""
    return [f"fp16 does not hold what some nodes compute; {len(kept)} compute in fp32: {', '.join(shown)}{more}"]
