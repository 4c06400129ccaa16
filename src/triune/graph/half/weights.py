"""Packed weights whose scales fp16 does not hold, or holds with fewer digits."""

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.half.limits import LARGEST, SMALLEST_NORMAL, sizes_within
from triune.graph.packed import packed_of
from triune.graph.values import Values, subgraphs_of
from triune.graph.weight_files import WeightFile
from triune.graph.weights import tensor_of

_MOST_SHOWN = 4


def make_whole(model: ModelProto, file: WeightFile) -> list[str]:
    """Given packed weights with scales beyond fp16's normal numbers. Result: the weights, computed in fp32.

    Args:
        model: normalized and narrowed; changed, graphs within its nodes too.
        file: takes large weights that are made.

    Returns:
        what a user is told of it: nothing, or one note.
    """
    names = _make_whole(model.graph, None, file)
    if not names:
        return []
    shown = ", ".join(f"'{name}'" for name in names[:_MOST_SHOWN])
    more = f", and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return [f"packed weights are whole: fp16 does not hold their scales; give --precision fp32: {shown}{more}"]


def _make_whole(graph: GraphProto, outer: Values | None, file: WeightFile) -> list[str]:
    """The names of the nodes that unpacked them."""
    values = Values(graph, outer)
    names: list[str] = []
    nodes: list[NodeProto] = []
    for node in graph.node:
        for inner in subgraphs_of(node):
            names += _make_whole(inner, values, file)
        packed = packed_of(node, values.tensor)
        if packed is None or _is_held(packed.scale):
            nodes.append(node)
            continue
        graph.initializer.append(file.moved(tensor_of(node.output[0], packed.whole())))
        names.append(node.name or node.output[0])
    if len(nodes) < len(graph.node):
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
    return names


def _is_held(scale: NDArray[np.generic]) -> bool:
    """Does fp16 hold the scales with all of its digits?"""
    sizes = sizes_within(scale)
    return sizes is None or SMALLEST_NORMAL <= sizes[0] <= sizes[1] <= LARGEST
