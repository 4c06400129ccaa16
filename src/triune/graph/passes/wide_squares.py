"""Compute sums of squares and powers of fp16 in fp32, as ONNX Runtime does."""

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
            _widen(model.graph, None, Names(model.graph))
        return model


def _widen(graph: GraphProto, outer: Values | None, names: Names) -> None:
    values = Values(graph, outer)
    nodes: list[NodeProto] = []
    for node in graph.node:
        for inner in subgraphs_of(node):
            _widen(inner, values, names)
        is_half = _is_sum(node) and values.elem_type(node.input[0]) == TensorProto.FLOAT16
        nodes += in_fp32(node, names) if is_half else [node]
    replace_nodes(graph, nodes)


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


def replace_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Replace the nodes of `graph`, in place; some of `nodes` may be its own."""
    if len(nodes) != len(graph.node):
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)


def _is_sum(node: NodeProto) -> bool:
    return node.op_type in _SUMS and node.domain in ("", "ai.onnx") and len(node.output) == 1
