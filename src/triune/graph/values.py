"""Look up the element type, shape and, for constants, the elements of a graph's values."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from triune.graph.weight_files import array_of


class Values:
    """The types, shapes and constants of the values that nodes of a graph can read: its own and those of outer
    graphs.
    """

    def __init__(self, graph: GraphProto, outer: "Values | None" = None) -> None:
        self._outer = outer
        # Inputs come last, so that they take precedence: an input that is also an output may have lost its shape as an
        # output.
        self._types: dict[str, TypeProto] = {
            value.name: value.type for value in (*graph.value_info, *graph.output, *graph.input)
        }
        # An initializer that is also an input is only the default of that input, not a constant.
        inputs = {value.name for value in graph.input}
        self._constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs}
        own = (dim.dim_param for value in graph.input for dim in value.type.tensor_type.shape.dim if dim.dim_param)
        self._input_sizes: frozenset[str] = frozenset(own) if outer is None else outer._input_sizes
        for node in graph.node:
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and node.output:
                tensor = constant_tensor(node)
                if tensor is not None:
                    self._constants[node.output[0]] = tensor

    def elem_type(self, name: str) -> int:
        """The TensorProto.DataType of a value; 0 if it is not known or the value is not a tensor."""
        tensor = self.tensor(name)
        if tensor is not None:
            return tensor.data_type
        found = self._type(name)
        return found.tensor_type.elem_type if found is not None else 0

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """The shape of a value, with None for unknown sizes; None if not even the rank is known."""
        tensor = self.tensor(name)
        if tensor is not None:
            return tuple(tensor.dims)
        found = self._type(name)
        if found is None or not found.tensor_type.HasField("shape"):
            return None
        return tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
            for dim in found.tensor_type.shape.dim
        )

    def static_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a value if all of its dimensions are known, else None."""
        shape = self.shape(name)
        if shape is None or any(dim is None for dim in shape):
            return None
        return tuple(dim for dim in shape if dim is not None)

    def rank(self, name: str) -> int | None:
        """The number of dimensions of a value; None if it is not known."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def may_be_empty(self, name: str, axis: int) -> bool:
        """Whether a size of a value may be 0: the size is unknown, and does not have the name of an input's
        dimension.
        """
        shape = self.shape(name)
        if shape is None or axis >= len(shape):
            return True
        found = self._type(name)
        dim = None if found is None else found.tensor_type.shape.dim[axis].dim_param
        return shape[axis] is None and dim not in self._input_sizes

    def type(self, name: str) -> TypeProto | None:
        """The TypeProto of a value; None if it is not known."""
        tensor = self.tensor(name)
        if tensor is not None:
            return helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        found = self._type(name)
        return found if found is not None and found.WhichOneof("value") else None

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of a constant; None if `name` is not constant."""
        tensor = self.tensor(name)
        return None if tensor is None else array_of(tensor)

    def tensor(self, name: str) -> TensorProto | None:
        """The value of a constant as a TensorProto; None if `name` is not constant."""
        found = self._constants.get(name)
        if found is not None or name in self._types:
            return found
        return self._outer.tensor(name) if self._outer else None

    def _type(self, name: str) -> TypeProto | None:
        return self._types.get(name) or (self._outer._type(name) if self._outer else None)


def constant_tensor(node: NodeProto) -> TensorProto | None:
    """The tensor of a Constant node; None if its value is something else, such as a sparse tensor."""
    for attribute in node.attribute:
        match attribute.name:
            case "value":
                return attribute.t
            case "value_int":
                return numpy_helper.from_array(np.array(attribute.i, np.int64))
            case "value_ints":
                return numpy_helper.from_array(np.array(attribute.ints, np.int64))
            case "value_float":
                return numpy_helper.from_array(np.array(attribute.f, np.float32))
            case "value_floats":
                return numpy_helper.from_array(np.array(attribute.floats, np.float32))
            case _:
                pass
    return None


def attributes_of(node: NodeProto) -> Mapping[str, Any]:
    """A node's attributes as Python values: strings as str, graphs and tensors as protobuf messages."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        match attribute.type:
            case attribute.FLOAT:
                values[attribute.name] = attribute.f
            case attribute.INT:
                values[attribute.name] = attribute.i
            case attribute.STRING:
                values[attribute.name] = attribute.s.decode()
            case attribute.FLOATS:
                values[attribute.name] = list(attribute.floats)
            case attribute.INTS:
                values[attribute.name] = list(attribute.ints)
            case attribute.STRINGS:
                values[attribute.name] = [each.decode() for each in attribute.strings]
            case attribute.TENSOR:
                values[attribute.name] = attribute.t
            case attribute.GRAPH:
                values[attribute.name] = attribute.g
            case _:
                values[attribute.name] = attribute
    return values


_OF_GRAPHS = frozenset([AttributeProto.GRAPH, AttributeProto.GRAPHS, AttributeProto.UNDEFINED])
"""The types of an attribute that may hold subgraphs. UNDEFINED is among them, since old files leave the type out."""


def subgraphs_of(node: NodeProto) -> Iterable[GraphProto]:
    """The subgraphs of a node: the branches of an If, the body of a Loop or Scan."""
    # This function is called for every node in every pass. The type of an attribute is faster to read than its fields.
    found = [each for each in node.attribute if each.type in _OF_GRAPHS]
    return [graph for each in found for graph in ((each.g,) if each.HasField("g") else each.graphs)] if found else ()


def nodes_within(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Yield nodes, each followed by the nodes of its subgraphs."""
    for node in nodes:
        yield node
        for graph in subgraphs_of(node):
            yield from nodes_within(graph.node)


def nodes_of_model(model: ModelProto) -> Iterator[NodeProto]:
    """Yield all nodes of a model, including those of functions and subgraphs."""
    for body in (model.graph, *model.functions):
        yield from nodes_within(body.node)


def names_read(graph: GraphProto) -> set[str]:
    """The names of the values that the nodes of `graph`, its outputs and its subgraphs read."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names |= names_read_by(node)
    return names


def names_read_by(node: NodeProto) -> set[str]:
    """The names of the values that a node and its subgraphs read."""
    names = set(node.input)
    for graph in subgraphs_of(node):
        names |= names_read(graph)
    return names
