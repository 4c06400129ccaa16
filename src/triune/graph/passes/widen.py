"""Convert a graph of fp16 to fp32."""

from collections.abc import Collection, Iterable

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from triune.graph.names import Names, rename_values
from triune.graph.passes.run import GraphPass
from triune.graph.weight_files import WeightFile, array_of

_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})
"""Attributes of ONNX's operators whose integer is an element type."""


class Widen(GraphPass):
    """Given tensors of fp16. Result: the same graph with tensors of fp32, including its inputs and outputs.

    Weights keep their values, which are rounded to fp16. So the search for values beyond fp16 (`graph.half`) treats a
    model that was written in fp16 like one in fp32.
    """

    name = "widen"

    def __init__(self, file: WeightFile | None = None) -> None:
        """`file` is the scratch file for new large weights; without it they are stored in the model."""
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model` in place."""
        _widen(model.graph, self._file)
        return model


class HalfInterface:
    """Given inputs and outputs of fp32. Result: those with given names are fp16, each with a Cast to or from fp32.

    Attributes:
        renamed: by the name of an input or output, the new name of its fp32 value in the graph.
    """

    name = "half_interface"

    def __init__(self, inputs: Collection[str], outputs: Collection[str]) -> None:
        """`inputs` and `outputs` are the names to change; `half_interface` finds them before `Widen` runs."""
        self._inputs = inputs
        self._outputs = outputs
        self.renamed: dict[str, str] = {}

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`, whose constants are initializers."""
        graph = model.graph
        names = Names(graph)
        # An output may itself be an input or a constant.
        leaving = [name for name in self._outputs if name not in self._inputs]
        self.renamed = renamed = {name: names.value(f"{name}/fp32") for name in (*self._inputs, *leaving)}
        rename_values(graph, renamed)
        for tensor in graph.initializer:
            tensor.name = renamed.get(tensor.name, tensor.name)
        for value in [value for value in (*graph.input, *graph.output) if value.name in renamed]:
            graph.value_info.add().CopyFrom(value)
            graph.value_info[-1].name = renamed[value.name]
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
        for name in reversed(list(self._inputs)):
            graph.node.insert(0, _cast(name, renamed[name], TensorProto.FLOAT))
        graph.node.extend(_cast(renamed[name], name, TensorProto.FLOAT16) for name in leaving)
        return model


def half_interface(graph: GraphProto) -> HalfInterface:
    """The pass that makes inputs and outputs fp16 again after `Widen`."""
    inputs, outputs = (
        [value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT16]
        for values in (graph.input, graph.output)
    )
    return HalfInterface(inputs, outputs)


def _cast(name: str, other: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [name], [other], name=f"{other}/cast", to=to)


def _widen(graph: GraphProto, file: WeightFile | None) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor, file)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _widen_type(value.type)
    for node in graph.node:
        _widen_attributes(node.attribute, file)


def _widen_attributes(attributes: Iterable[AttributeProto], file: WeightFile | None) -> None:
    for attribute in attributes:
        if attribute.type == AttributeProto.INT:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
        elif attribute.type == AttributeProto.TENSOR:
            _widen_tensor(attribute.t, None)
        elif attribute.type == AttributeProto.GRAPH:
            _widen(attribute.g, file)


def _widen_tensor(tensor: TensorProto, file: WeightFile | None) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        wide = numpy_helper.from_array(array_of(tensor).astype(np.float32), tensor.name)
        tensor.CopyFrom(wide if file is None else file.moved(wide))


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
