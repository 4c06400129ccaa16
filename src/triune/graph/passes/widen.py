"""Half precision out of a graph: what it would compute with all its bits."""

from collections.abc import Iterable

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, TypeProto, numpy_helper

from triune.graph.weight_files import array_of

_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})
"""Attributes of ONNX's operators whose integer is an element type."""


class Widen:
    """Given tensors of fp16. Result: the same graph with fp32 in their place, its inputs and outputs among them.

    Weights keep the values that they were rounded to.
    """

    name = "widen"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model` in place."""
        _widen(model.graph)
        return model


def _widen(graph: GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _widen_type(value.type)
    for node in graph.node:
        _widen_attributes(node.attribute)


def _widen_attributes(attributes: Iterable[AttributeProto]) -> None:
    for attribute in attributes:
        if attribute.type == AttributeProto.INT:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
        elif attribute.type == AttributeProto.TENSOR:
            _widen_tensor(attribute.t)
        elif attribute.type == AttributeProto.GRAPH:
            _widen(attribute.g)


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(array_of(tensor).astype(np.float32), tensor.name))


def _widen_type(kind: TypeProto) -> None:
    match kind.WhichOneof("value"):
        case "tensor_type":
            if kind.tensor_type.elem_type == TensorProto.FLOAT16:
                kind.tensor_type.elem_type = TensorProto.FLOAT
        case "sequence_type":
            _widen_type(kind.sequence_type.elem_type)
        case "optional_type":
            _widen_type(kind.optional_type.elem_type)
        case _:
            pass
