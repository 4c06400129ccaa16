"""Compute sums of squares and powers of fp16 in fp32, as ONNX Runtime does."""

from onnx import ModelProto, NodeProto, TensorProto, helper

from triune.graph.bare import infer_bare
from triune.graph.names import Names
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values

_SUMS = frozenset(["LpNormalization", "ReduceL2", "ReduceL1", "ReduceLogSumExp", "LRN", "LpPool", "GlobalLpPool"])
"""Operators whose result may be within fp16 although the sums in it are not: from 256 on, a square is beyond it."""


class WideSquares(GraphPass):
    """Given norms and pools of fp16 (ReduceL2, LpNormalization, LRN, LpPool), before they are written in core
    operators. Result: the same between casts to fp32 and back.
    """

    name = "wide_squares"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Put casts around such nodes of the main graph of `model`, in place."""
        if not any(_is_sum(node) for node in model.graph.node):
            return model
        values, names = Values(infer_bare(model).graph), Names(model.graph)
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            if not _is_sum(node) or values.elem_type(node.input[0]) != TensorProto.FLOAT16:
                nodes.append(node)
                continue
            given, result = names.value(f"{node.output[0]}/fp32 operand"), names.value(f"{node.output[0]}/fp32")
            wide = NodeProto.FromString(node.SerializeToString())
            wide.input[0], wide.output[0] = given, result
            nodes += [
                helper.make_node("Cast", [node.input[0]], [given], name=given, to=TensorProto.FLOAT),
                wide,
                helper.make_node("Cast", [result], [node.output[0]], name=result, to=TensorProto.FLOAT16),
            ]
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        return model


def _is_sum(node: NodeProto) -> bool:
    return node.op_type in _SUMS and node.domain in ("", "ai.onnx") and len(node.output) == 1
