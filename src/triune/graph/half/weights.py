"""Unpack weights whose scales fp16 cannot represent, or only with fewer digits."""

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.half.limits import LARGEST, SMALLEST_NORMAL, sizes_within
from triune.graph.packed import packed_of
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, subgraphs_of
from triune.graph.weight_files import WeightFile
from triune.graph.weights import tensor_of

_MOST_SHOWN = 4


class UnpackWeights(GraphPass):
    """Given packed weights with scales beyond fp16's normal numbers, in subgraphs too. Result: the weights unpacked in
    fp32.

    Attributes:
        notes: the messages for the user once the pass has run: none or one.
    """

    name = "unpack_weights"

    def __init__(self, file: WeightFile) -> None:
        """`file` is the scratch file for new large weights."""
        self._file = file
        self.notes: list[str] = []

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`, which is normalized and narrowed."""
        names = _unpack(model.graph, None, self._file)
        if names:
            shown = ", ".join(f"'{name}'" for name in names[:_MOST_SHOWN])
            more = f", and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
            self.notes = [
                f"packed weights are whole: fp16 does not hold their scales; give --precision fp32: {shown}{more}"
            ]
        return model


def _unpack(graph: GraphProto, outer: Values | None, file: WeightFile) -> list[str]:
    """Unpack the weights of a graph and its subgraphs; returns the names of the nodes that unpacked them before."""
    values = Values(graph, outer)
    names: list[str] = []
    nodes: list[NodeProto] = []
    for node in graph.node:
        for inner in subgraphs_of(node):
            names += _unpack(inner, values, file)
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
    """Whether fp16 represents the scales with all of its digits."""
    sizes = sizes_within(scale)
    return sizes is None or SMALLEST_NORMAL <= sizes[0] <= sizes[1] <= LARGEST
