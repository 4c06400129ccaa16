"""Find the nodes whose constants or results fp16 cannot represent."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from triune.graph.half.between import copies_between, scaled_inputs
from triune.graph.half.bounds import Bounds
from triune.graph.half.cancelled import cancelled_nodes
from triune.graph.half.constant_sizes import ConstantSizes
from triune.graph.half.exact import exact_producers
from triune.graph.half.features import is_of_features
from triune.graph.half.integer_outputs import integer_producers
from triune.graph.half.levels import level_producers, output_producers, scale_partners
from triune.graph.half.near_zero import guarded_producers, small_producers
from triune.graph.half.partners import score_producers, square_partners, variance_producers
from triune.graph.half.producers import Producers
from triune.graph.half.propagation import Propagation
from triune.graph.half.ranges import NONE, WIDE_INTEGERS, Range, Ranges, within
from triune.graph.half.scaled_back import elementwise_of_inputs, scaled_back
from triune.graph.half.spectra import spectrum_producers
from triune.graph.half.states import carries_state
from triune.graph.half.steps import fraction_producers, squashed_producers
from triune.graph.values import Values, subgraphs_of


@dataclass(frozen=True, slots=True)
class Kept:
    """A node that is to compute in fp32.

    Attributes:
        value: the name of the node's first result, which identifies the node.
        name: the node's name.
        op_type: its operator.
        reason: why, for the user; "" if the node is in fp32 only because a neighbour is.
    """

    value: str
    name: str
    op_type: str
    reason: str


def find_fp32_nodes(graph: GraphProto, softmaxes: Collection[str] = ()) -> list[Kept]:
    """Find the nodes that must compute in fp32, including those of subgraphs.

    A loop or a recurrent layer that carries floats from step to step is entirely in fp32, since rounding errors add up
    over its steps, and sums may leave fp16's range. The Neural Engine runs neither.

    Args:
        graph: a normalized and narrowed graph.
        softmaxes: the results of Softmax nodes whose masks fp16 cannot represent.
    """
    kept, _ = _Search(softmaxes).search(graph, None, None, None, {})
    return kept


class _Search:
    def __init__(self, softmaxes: Collection[str]) -> None:
        self._softmaxes = softmaxes

    def search(
        self,
        graph: GraphProto,
        values: Values | None,
        bounds: Bounds | None,
        constant_sizes: ConstantSizes | None,
        outer: Mapping[str, Ranges],
    ) -> tuple[list[Kept], list[Ranges]]:
        """Search a graph. Returns the nodes that must compute in fp32, and the `Ranges` of each output of the graph."""
        is_within = values is not None
        values = Values(graph, values)
        bounds, constant_sizes = Bounds(values, bounds), ConstantSizes(values, constant_sizes)
        producers = Producers(graph, values, bounds, is_within=is_within)
        ranges = dict(outer)
        if not outer:
            ranges.update(_of_integers(graph))
        kept: dict[str, Kept] = {}
        inner: list[Kept] = []
        for node in graph.node:
            is_carrier = carries_state(node)
            results: list[list[Ranges]] = []
            # Do not search the body of a loop that carries a state: all its nodes compute in fp32.
            for subgraph in () if is_carrier else subgraphs_of(node):
                found_within, of_outputs = self.search(subgraph, values, bounds, constant_sizes, ranges)
                inner += found_within
                results.append(of_outputs)
            bounds.learn(node)
            constant_sizes.learn(node)
            propagation = Propagation(node, values, bounds, constant_sizes, ranges, producers)
            found, reason, is_kept = propagation.result()
            ranges.update((name, within(found, bounds.of(name))) for name in node.output if name)
            if first_result(node) in self._softmaxes:
                is_kept, reason = True, reason or "its masks are beyond fp16"
            if is_of_features(node, values):
                is_kept, reason = True, reason or "it computes with features, which may be beyond fp16"
            if is_carrier:
                is_kept, reason = True, "its state is carried from step to step"
            if node.op_type == "If":
                ranges.update(
                    (name, NONE.union(*branches)) for name, *branches in zip(node.output, *results, strict=True)
                )
            if is_kept:
                kept[first_result(node)] = _kept(node, reason)
        self._add_producers(graph, producers, ranges, kept)
        for node in copies_between(graph, values, kept):
            kept.setdefault(first_result(node), _kept(node, ""))
        for node in scaled_inputs(graph, values, kept) if not is_within else ():
            kept.setdefault(first_result(node), _kept(node, ""))
        return [*kept.values(), *inner], [ranges.get(value.name, NONE) for value in graph.output]

    def _add_producers(
        self, graph: GraphProto, producers: Producers, ranges: Mapping[str, Ranges], kept: dict[str, Kept]
    ) -> None:
        """Add to `kept` the nodes that compute operands for which fp16 is not precise enough."""
        for value in graph.output if not producers.is_within else ():
            for producer in integer_producers(value.name, producers):
                kept.setdefault(first_result(producer), _kept(producer, "fp16 cannot represent all integers"))
        for value in graph.output:
            for producer in elementwise_of_inputs(value.name, producers) or ():
                kept.setdefault(first_result(producer), _kept(producer, "its results may be beyond fp16"))
        for producer in cancelled_nodes(graph, producers):
            kept.setdefault(first_result(producer), _kept(producer, "fp16 is not exact enough for what it subtracts"))
        for node in graph.node:
            for producer in exact_producers(node, producers):
                kept.setdefault(first_result(producer), _kept(producer, "fp16 is not exact enough"))
            for producer in (*squashed_producers(node, producers), *fraction_producers(node, producers)):
                kept.setdefault(first_result(producer), _kept(producer, "its step may be passed by rounding to fp16"))
            for producer in small_producers(node, producers):
                kept.setdefault(first_result(producer), _kept(producer, "fp16 would round its small numbers to 0"))
            for producer in spectrum_producers(node, producers) if first_result(node) in kept else ():
                kept.setdefault(first_result(producer), _kept(producer, "sums of its inputs may be beyond fp16"))
            for producer in variance_producers(node, producers):
                kept.setdefault(first_result(producer), _kept(producer, "fp16 is not exact enough"))
            for producer in scaled_back(node, producers):
                kept.setdefault(first_result(producer), _kept(producer, "beyond fp16 until it is scaled down"))
            for producer in level_producers(node, producers):
                kept.setdefault(first_result(producer), _kept(producer, "fp16 is not exact enough for its scale"))
            for producer in output_producers(node, producers):
                kept.setdefault(first_result(producer), _kept(producer, "fp16 is not exact enough for its levels"))
            if node.op_type in ("Mul", "Div") and any(Range.INTEGER in ranges.get(name, NONE) for name in node.input):
                for producer in scale_partners(node, producers):
                    kept.setdefault(first_result(producer), _kept(producer, ""))
            if node.op_type == "Log" and first_result(node) in kept:
                for producer in guarded_producers(node, producers):
                    kept.setdefault(first_result(producer), _kept(producer, ""))
            if node.op_type == "Softmax" and first_result(node) in kept:
                for producer in score_producers(node, producers):
                    kept.setdefault(first_result(producer), _kept(producer, ""))
            if node.op_type in ("Add", "Sub") and Range.SQUARE in ranges.get(node.output[0], NONE):
                for producer in square_partners(node, producers):
                    kept.setdefault(first_result(producer), _kept(producer, ""))


def _of_integers(graph: GraphProto) -> dict[str, Ranges]:
    """Returns LARGE for each input of a wide integer type: the integers may be beyond fp16, as seconds since 1970,
    prices and hashes are.
    """
    wide = [value.name for value in graph.input if value.type.tensor_type.elem_type in WIDE_INTEGERS]
    return dict.fromkeys(wide, frozenset([Range.LARGE]))


def first_result(node: NodeProto) -> str:
    """The name of a node's first result. It identifies the node, since several nodes may have the same name."""
    return next((name for name in node.output if name), "")


def _kept(node: NodeProto, reason: str) -> Kept:
    return Kept(first_result(node), node.name or first_result(node), node.op_type, reason)


def fp32_note(kept: Collection[Kept]) -> list[str]:
    """A list of one note for the user, with the number of nodes and the names of the first four; [] if no node has a
    reason.
    """
    first = [each for each in kept if each.reason]
    if not first:
        return []
    shown = [f"{each.op_type} '{each.name}' ({each.reason})" for each in first[:4]]
    more = f", and {len(first) - len(shown)} more" if len(first) > len(shown) else ""
    return [f"fp16 cannot represent what some nodes compute; {len(kept)} compute in fp32: {', '.join(shown)}{more}"]
