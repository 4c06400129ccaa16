"""Half precision put into a graph: computing in fp16 what it computes in fp32."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from triune.graph.passes.infer import Infer
from triune.graph.values import Values, subgraphs_of
from triune.graph.weights import SetAside

_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})
"""Attributes of ONNX's operators whose integer is an element type."""

_ALWAYS_FP32 = frozenset({"NonMaxSuppression"})
"""Operators that ONNX has in fp32 alone."""

_FP32_OPERANDS: Mapping[str, tuple[int, ...]] = {"Resize": (2,)}
"""Operands that ONNX has in fp32 alone, of operators that are halved."""

_LARGEST = float(np.finfo(np.float16).max)


class Halve:
    """Given tensors of fp32. Result: fp16 in their place, but for the model's inputs and outputs and what is kept.

    Finite constants beyond fp16 become its largest numbers: masks of -3.4e38 stay masks. What is computed beyond it
    becomes infinite, as it does in fp16.
    """

    name = "halve"

    def __init__(self, keep: Collection[str] = ()) -> None:
        """Args:
        keep: names of nodes or operators ("Softmax") that go on computing in fp32, between casts.
        """
        self._keep = frozenset(keep) | _ALWAYS_FP32

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`, whose constants are initializers and whose types are known."""
        graph = model.graph
        entering = [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT]
        leaving = [value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT]
        _Names(graph).rename({name: f"{name}/fp16" for name in (*entering, *leaving)})
        self._halve(graph, None)
        for name in reversed(entering):
            graph.node.insert(0, _cast(name, f"{name}/fp16", TensorProto.FLOAT16))
        graph.node.extend(_cast(f"{name}/fp16", name, TensorProto.FLOAT) for name in leaving)
        weights = SetAside(model)
        model = Infer()(model)
        weights.give_back(model)
        return model

    def _halve(self, graph: GraphProto, outer: Values | None) -> None:
        values = Values(graph, outer)
        if outer is not None:
            for value in (*graph.input, *graph.output):
                if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                    value.type.tensor_type.elem_type = TensorProto.FLOAT16
        del graph.value_info[:]
        wide = {node.input[place] for node in graph.node for place in _wide_places(node)}
        nodes: list[NodeProto] = []
        for node in graph.node:
            for inner in subgraphs_of(node):
                self._halve(inner, values)
            if self._keep & {node.name, node.op_type} and not any(True for _ in subgraphs_of(node)):
                nodes += self._kept(node, values)
            else:
                nodes += self._halved(node)
        del graph.node[:]
        graph.node.extend(nodes)
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and tensor.name not in wide:
                tensor.CopyFrom(numpy_helper.from_array(halved(numpy_helper.to_array(tensor)), tensor.name))

    def _halved(self, node: NodeProto) -> list[NodeProto]:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.INT and attribute.name in _TYPE_ATTRIBUTES:
                attribute.i = TensorProto.FLOAT16 if attribute.i == TensorProto.FLOAT else attribute.i
            elif attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(halved(numpy_helper.to_array(attribute.t))))
        return [node]

    def _kept(self, node: NodeProto, values: Values) -> list[NodeProto]:
        before: list[NodeProto] = []
        after: list[NodeProto] = []
        for place, name in enumerate(node.input):
            if name and values.elem_type(name) == TensorProto.FLOAT and place not in _wide_places(node):
                wide = f"{node.output[0]}/{place}/fp32"
                before.append(_cast(name, wide, TensorProto.FLOAT))
                node.input[place] = wide
        for place, name in enumerate(node.output):
            if name and values.elem_type(name) == TensorProto.FLOAT:
                wide = f"{name}/fp32"
                after.append(_cast(wide, name, TensorProto.FLOAT16))
                node.output[place] = wide
        return [*before, node, *after]


def halved(array: NDArray[Any]) -> NDArray[np.float16]:
    """As fp16: what is finite stays so."""
    finite = np.clip(array, -_LARGEST, _LARGEST)
    return np.where(np.isinf(array), array, finite).astype(np.float16)


def _wide_places(node: NodeProto) -> tuple[int, ...]:
    return tuple(place for place in _FP32_OPERANDS.get(node.op_type, ()) if place < len(node.input))


def _cast(name: str, other: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [name], [other], name=f"{other}/cast", to=to)


class _Names:
    """The names of a graph's values, within its nodes' graphs too."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph

    def rename(self, names: Mapping[str, str]) -> None:
        """In all nodes; inputs and outputs of the graph itself keep theirs."""
        self._rename(self._graph, names)

    def _rename(self, graph: GraphProto, names: Mapping[str, str]) -> None:
        for node in graph.node:
            for ends in (node.input, node.output):
                for place, name in enumerate(ends):
                    ends[place] = names.get(name, name)
            for inner in subgraphs_of(node):
                hidden = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
                seen = {name: other for name, other in names.items() if name not in hidden}
                self._rename(inner, seen)
                for value in inner.output:
                    value.name = seen.get(value.name, value.name)
