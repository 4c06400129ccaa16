"""Replace MeanVarianceNormalization by other operators, since ONNX Runtime's kernel lacks ONNX's epsilon and computes 0
/ 0.
"""

from onnx import GraphProto, ModelProto, NodeProto, helper

from triune.graph.names import Names
from triune.graph.values import attributes_of, subgraphs_of

_EPSILON = 1e-9
"""ONNX adds this to the standard deviation, so that the result for equal elements is 0."""

_AXES_ARE_INPUTS = 18

_FIRST_CAST_LIKE = 15
"""The first operator set with CastLike, which the replacement needs. Models of older sets are not changed."""


def write_norms(model: ModelProto) -> None:
    """Replace each MeanVarianceNormalization by (x - mean) / (sqrt(mean((x - mean)^2)) + 1e-9). Changes `model`."""
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < _FIRST_CAST_LIKE:
        return
    names = Names(model.graph)
    names.value("norm")  # The names are collected before the graph is changed.
    _write(model.graph, names, opset)


def _write(graph: GraphProto, names: Names, opset: int) -> None:
    nodes: list[NodeProto] = []
    for node in graph.node:
        for inner in subgraphs_of(node):
            _write(inner, names, opset)
        # Older versions of the operator had other attributes.
        is_norm = node.op_type == "MeanVarianceNormalization" and node.domain in ("", "ai.onnx")
        is_defined = is_norm and not {"across_channels", "normalize_variance"} & attributes_of(node).keys()
        nodes += _norm(node, names, opset) if is_defined else [node]
    del graph.node[:]
    graph.node.extend(nodes)


def _norm(node: NodeProto, names: Names, opset: int) -> list[NodeProto]:
    x, (y,) = node.input[0], node.output
    axes = [int(axis) for axis in attributes_of(node).get("axes", [0, 2, 3])]
    parts = ("axes", "mean", "centered", "squares", "variance", "deviation", "epsilon", "like", "divisor")
    name = {part: names.value(f"{y}/{part}") for part in parts}
    wide = opset >= _AXES_ARE_INPUTS

    def mean(of: str, into: str) -> NodeProto:
        if wide:
            return helper.make_node("ReduceMean", [of, name["axes"]], [into], keepdims=1)
        return helper.make_node("ReduceMean", [of], [into], keepdims=1, axes=axes)

    return [
        *([helper.make_node("Constant", [], [name["axes"]], value_ints=axes)] if wide else []),
        mean(x, name["mean"]),
        helper.make_node("Sub", [x, name["mean"]], [name["centered"]]),
        helper.make_node("Mul", [name["centered"], name["centered"]], [name["squares"]]),
        mean(name["squares"], name["variance"]),
        helper.make_node("Sqrt", [name["variance"]], [name["deviation"]]),
        helper.make_node("Constant", [], [name["epsilon"]], value_float=_EPSILON),
        helper.make_node("CastLike", [name["epsilon"], x], [name["like"]]),
        helper.make_node("Add", [name["deviation"], name["like"]], [name["divisor"]]),
        helper.make_node("Div", [name["centered"], name["divisor"]], [y]),
    ]
