"""Compute normalizations of fp16 in fp32 whose epsilon is 0 in fp16."""

from typing import Final

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from triune.graph.names import Names
from triune.graph.passes.run import GraphPass
from triune.graph.passes.wide_squares import in_fp32, widen
from triune.graph.values import Values, attributes_of, nodes_within

_LEAST: Final = 2.0**-24
"""The least positive number of fp16."""

_NORMALIZATIONS: Final = ("LayerNormalization", "InstanceNormalization", "BatchNormalization")


class WideGuards(GraphPass):
    """Given normalizations of fp16 whose epsilon fp16 cannot represent (1e-12, as BERT has it): equal numbers would be
    0 divided by 0. Result: the same between casts to fp32 and back, as ONNX Runtime computes them.
    """

    name = "wide_guards"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Put casts around such nodes of `model` and of its subgraphs, in place. It must be in core operators."""
        if any(_has_lost_guard(node) for node in nodes_within(model.graph.node)):
            widen(model.graph, None, Names(model.graph), _has_lost_guard, _with_wide_operands)
        return model


def _has_lost_guard(node: NodeProto) -> bool:
    is_one = len([name for name in node.output if name]) == 1
    return node.op_type in _NORMALIZATIONS and is_one and 0 < attributes_of(node).get("epsilon", 1e-5) < _LEAST


def _with_wide_operands(node: NodeProto, graph: GraphProto, values: Values, names: Names) -> list[NodeProto]:
    before, wide, after = in_fp32(node, names)
    nodes = [before]
    for index, name in enumerate(node.input[1:], start=1):
        if name and values.elem_type(name) == TensorProto.FLOAT16:
            wide.input[index] = _as_fp32(name, graph, values, names, nodes)
    return [*nodes, wide, after]


def _as_fp32(name: str, graph: GraphProto, values: Values, names: Names, nodes: list[NodeProto]) -> str:
    """The name of an operand in fp32: a new constant if it is one, else the result of a Cast that joins `nodes`."""
    wide = names.value(f"{name}/fp32")
    known = values.constant(name)
    if known is not None:
        graph.initializer.append(numpy_helper.from_array(known.astype(np.float32), wide))
    else:
        nodes.append(helper.make_node("Cast", [name], [wide], name=wide, to=TensorProto.FLOAT))
    return wide
