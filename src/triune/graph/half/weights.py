"""Dequantize weights whose scales are outside of fp16's range, or subnormal in fp16."""

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
    """Given quantized weights (DequantizeLinear of constants) with scales outside fp16's normal numbers, 6.1e-5 to
    65504. Result: the weights as constants in fp32, in subgraphs too.

    Attributes:
        notes: messages for the user, set by the run: none or one.
    """

    name = "unpack_weights"

    def __init__(self, file: WeightFile) -> None:
        """`file` is the scratch file for new large weights."""
        self._file = file
        self.notes: list[str] = []

    def __call__(self, model: ModelProto) -> ModelProto:
        """Dequantize weights in `model`, in place, whose scales are no normal numbers of fp16.

        `model` must be normalized and narrowed.
        """
        names = _unpack(model.graph, None, self._file)
        if names:
            shown = ", ".join(f"'{name}'" for name in names[:_MOST_SHOWN])
            more = f", and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
            self.notes = [
                "quantized weights were dequantized, since fp16 cannot represent their scales; "
                f"give --precision fp32 to keep them quantized: {shown}{more}"
            ]
        return model


def _unpack(graph: GraphProto, outer: Values | None, file: WeightFile) -> list[str]:
    """Dequantize the weights whose scales are not normal numbers of fp16, in a graph and its subgraphs. Returns the
    names of the DequantizeLinear nodes that become constants.
    """
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
    """Whether all scales, except 0, are normal numbers of fp16."""
    sizes = sizes_within(scale)
    return sizes is None or SMALLEST_NORMAL <= sizes[0] <= sizes[1] <= LARGEST
