"""Replace norms that ONNX Runtime computes wrongly by other operators.

Its kernel for MeanVarianceNormalization lacks ONNX's epsilon and computes 0 / 0. ONNX Runtime computes
GroupNormalization by ONNX's function body, whose variance mean(x^2) - mean^2 loses all bits, and may be negative, if
the mean is far larger than the deviation.
"""

from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, helper

from triune.graph.names import Names
from triune.graph.values import attributes_of, subgraphs_of

_EPSILON = 1e-9
"""ONNX adds this to the standard deviation, so that the result for equal elements is 0."""

_AXES_ARE_INPUTS = 18

_FIRST_CAST_LIKE = 15
"""The first operator set with CastLike, which the replacement needs. Models of older sets are not changed."""


def write_norms(model: ModelProto) -> None:
    """Replace each MeanVarianceNormalization by (x - mean) / (sqrt(mean((x - mean)^2)) + 1e-9), and each
    GroupNormalization by an InstanceNormalization of the groups. Changes `model`.
    """
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < _FIRST_CAST_LIKE:
        return
    names = Names(model.graph)
    # The first call of `value` collects the graph's names, which must be done before the graph is changed.
    names.value("norm")
    _write(model.graph, names, opset)


def _write(graph: GraphProto, names: Names, opset: int) -> None:
    nodes: list[NodeProto] = []
    for node in graph.node:
        for inner in subgraphs_of(node):
            _write(inner, names, opset)
        nodes += _replacement(node, names, opset) if node.domain in ("", "ai.onnx") else [node]
    del graph.node[:]
    graph.node.extend(nodes)


def _replacement(node: NodeProto, names: Names, opset: int) -> list[NodeProto]:
    attributes = attributes_of(node)
    # Leave older versions of MeanVarianceNormalization, which had other attributes, as they are.
    if (
        node.op_type == "MeanVarianceNormalization"
        and not {"across_channels", "normalize_variance"} & attributes.keys()
    ):
        return _norm(node, names, opset)
    if node.op_type == "GroupNormalization":
        return _group_norm(node, names, opset)
    return [node]


def _group_norm(node: NodeProto, names: Names, opset: int) -> list[NodeProto]:
    (x, scale, bias), (y,), attributes = node.input, node.output, attributes_of(node)
    groups = int(attributes["num_groups"])
    parts = ("form", "one", "none", "zero", "rest", "axis", "ones", "zeros", "parts", "normal", "sizes", "channels")
    more = ("columns", "scale", "bias", "product", "sum", "shape")
    name = {part: names.value(f"{y}/{part}") for part in (*parts, *more)}

    def constant(part: str, **value: Any) -> NodeProto:
        return helper.make_node("Constant", [], [name[part]], **value)

    # Scale and bias have one element for each group before operator set 21, and for each channel from then on. The
    # normalized values are reshaped so that each of these elements has a row of its own.
    return [
        constant("form", value_ints=[0, groups, -1]),
        constant("one", value_floats=[1.0] * groups),
        constant("none", value_floats=[0.0] * groups),
        constant("zero", value_ints=[0]),
        constant("rest", value_ints=[-1]),
        constant("axis", value_ints=[1]),
        helper.make_node("CastLike", [name["one"], x], [name["ones"]]),
        helper.make_node("CastLike", [name["none"], x], [name["zeros"]]),
        helper.make_node("Reshape", [x, name["form"]], [name["parts"]]),
        helper.make_node(
            "InstanceNormalization",
            [name["parts"], name["ones"], name["zeros"]],
            [name["normal"]],
            epsilon=attributes.get("epsilon", 1e-5),
        ),
        helper.make_node("Shape", [scale], [name["sizes"]]),
        helper.make_node("Concat", [name["zero"], name["sizes"], name["rest"]], [name["channels"]], axis=0),
        helper.make_node("Reshape", [name["normal"], name["channels"]], [name["columns"]]),
        helper.make_node("Unsqueeze", [scale, name["axis"]], [name["scale"]]),
        helper.make_node("Unsqueeze", [bias, name["axis"]], [name["bias"]]),
        helper.make_node("Mul", [name["columns"], name["scale"]], [name["product"]]),
        helper.make_node("Add", [name["product"], name["bias"]], [name["sum"]]),
        helper.make_node("Shape", [x], [name["shape"]]),
        helper.make_node("Reshape", [name["sum"], name["shape"]], [y]),
    ]


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
