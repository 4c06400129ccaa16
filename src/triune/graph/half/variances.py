"""Rewrite batch normalizations whose constant variances or means fp16 cannot represent."""

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from triune.core.datatypes import Array
from triune.graph.half.limits import LARGEST, SMALLEST_NORMAL
from triune.graph.names import Names
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, attributes_of


class FoldVariances(GraphPass):
    """Given a BatchNormalization whose constant variance or mean fp16 cannot represent. Result: a BatchNormalization
    with variance 1.

    The scale becomes scale / sqrt(variance + epsilon), computed in fp64, and epsilon becomes 0. If the scale is not a
    constant, a Mul node is inserted. Subgraphs are not changed.
    """

    name = "fold_variances"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Rewrite BatchNormalizations in `model`, in place, whose variance or mean fp16 cannot represent.

        `model` must be normalized.
        """
        values, names = Values(model.graph), Names(model.graph)
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            if node.op_type == "BatchNormalization" and not attributes_of(node).get("training_mode", 0):
                nodes += _folded(model, node, values, names)
            nodes.append(node)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        return model


def _folded(model: ModelProto, node: NodeProto, values: Values, names: Names) -> list[NodeProto]:
    """Change a BatchNormalization if fp16 cannot represent its variance or mean; returns the nodes to insert before
    it.
    """
    constants = [values.constant(name) for name in node.input[1:5]]
    scale, _, mean, variance = (None if each is None else each.astype(np.float64) for each in constants)
    if variance is None:
        return []
    variance = variance + attributes_of(node).get("epsilon", 1e-5)
    largest = max(variance.max(initial=1), 0 if mean is None else np.abs(mean).max(initial=0))
    if variance.min(initial=1) >= SMALLEST_NORMAL and largest <= LARGEST:
        return []
    before: list[NodeProto] = []
    factor: Array = 1 / np.sqrt(variance)
    if scale is None:
        product = names.value(f"{node.output[0]}/scale")
        before.append(helper.make_node("Mul", [node.input[1], _constant(model, node, names, factor)], [product]))
        node.input[1] = product
    else:
        node.input[1] = _constant(model, node, names, scale * factor)
    node.input[4] = _constant(model, node, names, np.ones_like(factor))
    kept = [attribute for attribute in node.attribute if attribute.name != "epsilon"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("epsilon", 0.0)])
    return before


def _constant(model: ModelProto, node: NodeProto, names: Names, array: Array) -> str:
    name = names.value(f"{node.output[0]}/folded")
    model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return name
