"""Compute layer normalization over axis 1 of (B, C, 1, S), the Neural Engine's layout."""

import numpy as np
from onnx import ModelProto, NodeProto

from triune.graph.ane.borders import Borders
from triune.graph.ane.flow import Flow
from triune.graph.ane.layout_pass import LayoutPass
from triune.graph.index import Index, label
from triune.graph.values import attributes_of

CHANNELS = 1


class ChannelNorm(LayoutPass):
    """Given LayerNormalization over the last axis of (B, S, C), whose operand or consumer is in the layout (B, C, 1,
    S).

    Result: the same over axis 1 of (B, C, 1, S), z / sqrt(mean(z * z) + epsilon) * scale + bias, where z = x - mean(x).
    In fp32 the conversion to Core ML writes this as one layer_norm; for fp16 `graph.half` rewrites it.
    """

    name = "channel_norm"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Rewrite LayerNormalizations in `model`, in place, so that they compute over axis 1 of (B, C, 1, S)."""
        index = self._index(model.graph)
        borders = Borders(index)
        flow = Flow(index, borders, list(model.graph.node))
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            if node.op_type != "LayerNormalization":
                nodes.append(node)
                continue
            is_near = flow.is_inside(node.input[0]) or node.output[0] in flow.wanted
            if not flow.operands(node) or not is_near:
                nodes.append(node)
                self._report.leave(self.name, label(node), _reason(index, node, is_near=is_near))
                continue
            borders.leave(_normal(index, borders.enter(node.input[0]), node), node.output[0])
            nodes += index.take()
            self._report.change(self.name, label(node), "over channels")
        index.replace(nodes)
        return model


def _reason(index: Index, node: NodeProto, *, is_near: bool) -> str:
    rank = index.rank(node.input[0])
    if rank != 3:
        return f"an operand of rank {rank} has no layout (B, C, 1, S)"
    return "it is not over the last axis alone" if is_near else "no node before or after it is in the layout"


def _normal(index: Index, x: str, node: NodeProto) -> str:
    """Build the normalization of `x` (B, C, 1, S), with the attributes and weights of `node`; returns the result's
    name.
    """
    build = index.build
    epsilon = index.weight(np.array(attributes_of(node).get("epsilon", 1e-5), index.dtype(node.input[0])))
    axes = build.ints(CHANNELS)
    centred = build.op("Sub", x, build.op("ReduceMean", x, axes, keepdims=1))
    variance = build.op("ReduceMean", build.op("Mul", centred, centred), axes, keepdims=1)
    deviation = build.op("Sqrt", build.op("Add", variance, epsilon))
    normal = build.op("Mul", centred, build.op("Reciprocal", deviation))
    scale, bias = _per_channel(index, node, 1), _per_channel(index, node, 2)
    scaled = build.op("Mul", normal, scale) if scale else normal
    return build.op("Add", scaled, bias) if bias else scaled


def _per_channel(index: Index, node: NodeProto, position: int) -> str:
    """The name of the input `position` of a node, a scale or bias (C), as (1, C, 1, 1); "" if there is none."""
    name = node.input[position] if len(node.input) > position else ""
    array = index.constant(name) if name else None
    if array is not None:
        return index.weight(array.reshape(1, -1, 1, 1))
    return index.build.op("Unsqueeze", name, index.build.ints(0, 2, 3)) if name else ""
