"""Convert a graph from fp16 or bf16 to fp32."""

from collections.abc import Collection, Iterable

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from triune.graph.names import Names, rename_values
from triune.graph.passes.run import GraphPass
from triune.graph.weight_files import WeightFile, array_of

_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})
"""The names of attributes of ONNX operators that are element types."""


class Widen(GraphPass):
    """Given tensors of fp16, or of another float type. Result: tensors of fp32, including the model's inputs and
    outputs.

    The values of weights do not change. `graph.half` searches graphs of fp32 for values beyond fp16; after this pass it
    can search a model that was exported in fp16, too.
    """

    name = "widen"

    def __init__(self, file: WeightFile | None = None, of: int = TensorProto.FLOAT16) -> None:
        """`file` is the scratch file for new large weights; without it they are stored in the model. `of` is the
        element type that becomes fp32: FLOAT16 or BFLOAT16.
        """
        self._file = file
        self._of = of

    def __call__(self, model: ModelProto) -> ModelProto:
        """Convert the fp16 or bf16 tensors of `model`, in place, to fp32."""
        _widen(model.graph, self._file, self._of)
        return model


class HalfInterface:
    """Given inputs and outputs of fp32. Result: some of them are fp16, each with a Cast to or from fp32.

    Attributes:
        renamed: for the name of each input or output that is now fp16, the name of its fp32 value in the graph.
    """

    name = "half_interface"

    def __init__(self, inputs: Collection[str], outputs: Collection[str]) -> None:
        """`inputs` and `outputs` are the names of the values to change, which `half_interface` finds before `Widen`."""
        self._inputs = inputs
        self._outputs = outputs
        self.renamed: dict[str, str] = {}

    def __call__(self, model: ModelProto) -> ModelProto:
        """Make the chosen inputs and outputs of `model` fp16, in place. Its constants must be initializers."""
        graph = model.graph
        names = Names(graph)
        # Inputs that are outputs too are in `_inputs` already.
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
    """Create the pass that is to run after `Widen`: it makes those inputs and outputs fp16 again that are fp16 now."""
    inputs, outputs = (
        [value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT16]
        for values in (graph.input, graph.output)
    )
    return HalfInterface(inputs, outputs)


def _cast(name: str, other: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [name], [other], name=f"{other}/cast", to=to)


def _widen(graph: GraphProto, file: WeightFile | None, of: int) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor, file, of)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _widen_type(value.type, of)
    for node in graph.node:
        _widen_attributes(node.attribute, file, of)


def _widen_attributes(attributes: Iterable[AttributeProto], file: WeightFile | None, of: int) -> None:
    for attribute in attributes:
        if attribute.type == AttributeProto.INT:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i == of:
                attribute.i = TensorProto.FLOAT
        elif attribute.type == AttributeProto.TENSOR:
            _widen_tensor(attribute.t, None, of)
        elif attribute.type == AttributeProto.GRAPH:
            _widen(attribute.g, file, of)


def _widen_tensor(tensor: TensorProto, file: WeightFile | None, of: int) -> None:
    if tensor.data_type == of:
        wide = numpy_helper.from_array(array_of(tensor).astype(np.float32), tensor.name)
        tensor.CopyFrom(wide if file is None else file.moved(wide))


def _widen_type(kind: TypeProto, of: int) -> None:
    match kind.WhichOneof("value"):
        case "tensor_type":
            if kind.tensor_type.elem_type == of:
                kind.tensor_type.elem_type = TensorProto.FLOAT
        case "sequence_type":
            _widen_type(kind.sequence_type.elem_type, of)
        case "optional_type":
            _widen_type(kind.optional_type.elem_type, of)
        case _:
            pass
