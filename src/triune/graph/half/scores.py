"""Products of matrices that are scaled down afterwards, such as the scores of attention."""

from collections import Counter

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from triune.graph.values import Values, names_read_by, subgraphs_of

_SMALLEST_SCALE = 2.0**-10
"""By a smaller one, operands that are small themselves would leave the normal numbers of fp16."""


def scale_before(model: ModelProto) -> None:
    """Given `(q @ k) * scale` or `(q @ k) / divisor`, of a constant that makes it smaller. Result: `(q * scale) @ k`.

    The product itself may be beyond fp16 where the scaled one is not. It is rounded as often as before.

    Args:
        model: normalized; changed.
    """
    _scale_before(model.graph, None)


def _scale_before(graph: GraphProto, outer: Values | None) -> None:
    values = Values(graph, outer)
    reads = Counter(name for node in graph.node for name in (*node.input, *(names_read_by(node) - {*node.input})))
    reads.update(value.name for value in graph.output)
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    scaled: dict[str, tuple[NodeProto, float]] = {}
    for node in graph.node:
        for inner in subgraphs_of(node):
            _scale_before(inner, values)
        for name, scale in _scale_of(node, values):
            if name in products and reads[name] == 1:
                scaled[name] = node, scale
    nodes: list[NodeProto] = []
    removed = {id(node) for node, _ in scaled.values()}
    for node in graph.node:
        if node.op_type == "MatMul" and node.output[0] in scaled:
            last, scale = scaled[node.output[0]]
            nodes.append(_scale_operand(graph, node, scale, last.output[0]))
            node.output[0] = last.output[0]
        if id(node) not in removed:
            nodes.append(node)
    kept = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _scale_of(node: NodeProto, values: Values) -> list[tuple[str, float]]:
    """What a node multiplies by a number below 1, and that number."""
    if node.op_type not in ("Mul", "Div"):
        return []
    for place in (1, 0) if node.op_type == "Mul" else (1,):
        scale, name = values.constant(node.input[place]), node.input[1 - place]
        rank = values.rank(name)
        if scale is None or scale.size != 1 or scale.dtype != np.float32 or rank is None or scale.ndim > rank:
            continue
        number = float(scale.reshape(-1)[0])
        if node.op_type == "Div":
            number = 1 / number if number else 0.0
        if _SMALLEST_SCALE <= abs(number) < 1:
            return [(name, number)]
    return []


def _scale_operand(graph: GraphProto, product: NodeProto, scale: float, name: str) -> NodeProto:
    """A node that scales the first operand of a product, which reads it from then on."""
    constant = numpy_helper.from_array(np.array(scale, np.float32), f"{name}/scale")
    graph.initializer.append(constant)
    node = helper.make_node("Mul", [product.input[0], constant.name], [f"{name}/scaled"], name=f"{name}/scaled")
    product.input[0] = node.output[0]
    return node


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
