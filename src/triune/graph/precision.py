"""The float type that a model computes in, and how large the error of results computed in it may be."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from onnx import GraphProto, ModelProto, TensorProto

from triune.graph.values import subgraphs_of

TOLERANCES: Final[Mapping[str, float]] = MappingProxyType({"fp32": 1e-4, "fp16": 0.05, "bf16": 0.25})
"""By precision: the error that an output may have, relative to its largest value.

Real models are within a tenth of these: docs/conformance.md. A float of fp16 has 11 bits, of bf16 8.
"""

_NARROW = {TensorProto.BFLOAT16: "bf16", TensorProto.FLOAT16: "fp16"}
"""The names of the float types that are less precise than fp32, the least precise first."""


def precision_of(model: ModelProto) -> str:
    """The least precise float type that a model computes in: "bf16", "fp16", or "fp32" for all others.

    Weights that are stored in a less precise type and only read by a Cast do not count.
    """
    found = _floats_of(model.graph)
    return next((word for elem_type, word in _NARROW.items() if elem_type in found), "fp32")


def _floats_of(graph: GraphProto) -> set[int]:
    """The element types of the inputs and outputs of a graph and its subgraphs, and of all values read by nodes but
    Cast.
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
