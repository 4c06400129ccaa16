"""The float type in which a model computes, and the error that results in each float type may have."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from onnx import GraphProto, ModelProto, TensorProto

from triune.graph.values import subgraphs_of

TOLERANCES: Final[Mapping[str, float]] = MappingProxyType({"fp32": 1e-4, "fp16": 0.05, "bf16": 0.25})
"""For each float type, the error that an output may have, relative to its largest value.

Real models have less than a tenth of these errors (docs/conformance.md). The significand of fp16 has 11 bits, that of
bf16 has 8.
"""

_NARROW = {TensorProto.BFLOAT16: "bf16", TensorProto.FLOAT16: "fp16"}
"""The float types that are less precise than fp32, beginning with the least precise, and their names."""


def precision_of(model: ModelProto) -> str:
    """The least precise float type in which a model computes: "bf16", "fp16", or "fp32" for all others.

    Weights that are stored in a less precise type, and that only a Cast reads, do not count.
    """
    found = _floats_of(model.graph)
    return next((word for elem_type, word in _NARROW.items() if elem_type in found), "fp32")


def _floats_of(graph: GraphProto) -> set[int]:
    """The element types of a graph's inputs, outputs and casts, and of constants that other nodes than Cast read; in
    subgraphs too.
    """
    found = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast":
            found.update(attribute.i for attribute in node.attribute if attribute.name == "to")
        elif node.op_type == "Constant":
            constants.update((node.output[0], attribute.t.data_type) for attribute in node.attribute)
        else:
            found.update(constants[name] for name in node.input if name in constants)
        for inner in subgraphs_of(node):
            found |= _floats_of(inner)
    return found
