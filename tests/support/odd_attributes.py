"""Operators with attributes of each sign, since a function body or a lowering may be right only for positive ones."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

X = np.array([-20, -3, -1.5, -1, -0.5, -0.1, -0.0, 0, 0.1, 0.5, 1, 1.5, 3, 6, 20], np.float32)
_SIGNS = (-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0)


def _each(**values: Sequence[float]) -> list[dict[str, float]]:
    return [dict(zip(values, map(float, each), strict=True)) for each in product(*values.values())]


ATTRIBUTES: Mapping[str, list[dict[str, float]]] = {
    **{name: _each(alpha=_SIGNS) for name in ("Celu", "Elu", "LeakyRelu", "ThresholdedRelu")},
    "Selu": _each(alpha=(-2, -0.5, 0, 1.5), gamma=(-1, 0, 0.5, 2)),
    "HardSigmoid": _each(alpha=(-2, -0.2, 0, 0.5), beta=(-1, 0, 0.5, 2)),
    "Shrink": _each(lambd=(-2, -0.5, 0, 1.5), bias=(-1, 0, 0.5, 2)),
}


def odd_model(op_type: str) -> ModelProto:
    """A model with one output for each set of the operator's attributes."""
    nodes = [helper.make_node(op_type, ["x"], [f"y{i}"], **each) for i, each in enumerate(ATTRIBUTES[op_type])]
    value: Any = helper.make_tensor_value_info
    outputs = [value(node.output[0], TensorProto.FLOAT, X.shape) for node in nodes]
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, X.shape)], outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
