"""Compute sums of squares and powers of fp16 in fp32, as ONNX Runtime does."""

from collections.abc import Callable

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from triune.graph.names import Names
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, nodes_within, subgraphs_of

_SUMS = frozenset(
    [
        *("LpNormalization", "ReduceL2", "ReduceL1", "ReduceLogSum", "ReduceLogSumExp", "LRN", "LpPool"),
        *("GlobalLpPool", "MeanVarianceNormalization"),
    ]
)
"""Operators whose result may be within fp16 although the sums in it are not: from 256 on, a square is beyond it. The
guard of MeanVarianceNormalization, 1e-9, is 0 in fp16.
"""


class WideSquares(GraphPass):
    """Given norms and pools of fp16 (ReduceL2, LpNormalization, LRN, LpPool), before they are written in core
    operators. Result: the same between casts to fp32 and back.
    """

    name = "wide_squares"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Put casts around such nodes of `model` and of its subgraphs, in place. Types must have been inferred
        (`Infer`), and the model's functions inlined.
        """
        if any(_is_sum(node) for node in nodes_within(model.graph.node)):
            widen(model.graph, None, Names(model.graph), _is_sum, _around)
        return model


def widen(
    graph: GraphProto,
    outer: Values | None,
    names: Names,
    is_wanted: Callable[[NodeProto], bool],
    write: Callable[[NodeProto, GraphProto, Values, Names], list[NodeProto]],
) -> None:
    """Replace some nodes of a graph and of its subgraphs, in place: those whose first operand is fp16.

    Args:
        graph: the graph.
        outer: the values of the graphs around it; None for a model's own graph.
        names: makes names that are new in the model.
        is_wanted: whether to replace a node, if its first operand is fp16.
        write: returns the nodes that replace a node of a graph with these values.
    """
    values = Values(graph, outer)
    nodes: list[NodeProto] = []
    for node in graph.node:
        for inner in subgraphs_of(node):
            widen(inner, values, names, is_wanted, write)
        is_half = is_wanted(node) and values.elem_type(node.input[0]) == TensorProto.FLOAT16
        nodes += write(node, graph, values, names) if is_half else [node]
    if len(nodes) != len(graph.node):
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)


def _around(node: NodeProto, graph: GraphProto, values: Values, names: Names) -> list[NodeProto]:
    del graph, values
    return in_fp32(node, names)


def in_fp32(node: NodeProto, names: Names) -> list[NodeProto]:
    """A node that computes its first operand, of fp16, in fp32: a Cast, the node, and a Cast of its one result."""
    given, result = names.value(f"{node.output[0]}/fp32 operand"), names.value(f"{node.output[0]}/fp32")
    wide = NodeProto.FromString(node.SerializeToString())
    wide.input[0], wide.output[0] = given, result
    return [
        helper.make_node("Cast", [node.input[0]], [given], name=given, to=TensorProto.FLOAT),
        wide,
        helper.make_node("Cast", [result], [node.output[0]], name=result, to=TensorProto.FLOAT16),
    ]


def _is_sum(node: NodeProto) -> bool:
    return node.op_type in _SUMS and node.domain in ("", "ai.onnx") and len(node.output) == 1
