"""Convert INT8 weights to UINT8, since ONNX Runtime's matrix products with INT8 weights saturate on some CPUs."""

import itertools
from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, TensorProto

from triune.graph.weight_files import array_of
from triune.graph.weights import tensor_of

_WEIGHTS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "DynamicQuantizeLSTM": ((1, 9), (2, 11)),
    "DynamicQuantizeMatMul": ((1, 3),),
}
"""Operators of com.microsoft that multiply uint8 activations by weights: the input positions of each weight and of its
zero point.
"""

_SHIFT = 128


def use_unsigned_weights(model: ModelProto) -> None:
    """Add 128 to INT8 weights and their zero points, so that weight - zero point stays the same. Changes `model`.

    On x86 without VNNI, ONNX Runtime's product of uint8 and int8 adds pairs in 16 bits and saturates (for that reason
    its documentation of quantization recommends weights of 7 bits). The product of uint8 and uint8 does not.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.INT8}
    names = list(itertools.chain.from_iterable(node.input for node in graph.node))
    for node in graph.node:
        positions = _WEIGHTS.get(node.op_type, ()) if node.domain == "com.microsoft" else ()
        pairs = [[node.input[position] for position in pair] for pair in positions if max(pair) < len(node.input)]
        wanted = dict.fromkeys(itertools.chain.from_iterable(pairs))
        # Change all of the node's weights or none, since they must have one type.
        if not all(name in tensors and names.count(name) == list(node.input).count(name) for name in wanted):
            continue
        for name in wanted:
            shifted = (array_of(tensors[name]).astype(np.int16) + _SHIFT).astype(np.uint8)
            tensors[name].CopyFrom(tensor_of(name, shifted))
