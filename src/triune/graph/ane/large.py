"""Large constants, kept out of the graph while passes work on it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from triune.graph.ane.names import names_read
from triune.graph.weights import LARGE_BYTES


class Large:
    """The large constants of a model. In its graph they are inputs for the time being: passes copy the graph often."""

    def __init__(self) -> None:
        self._tensors: dict[str, TensorProto] = {}

    def get(self, name: str) -> TensorProto | None:
        """A constant that is kept here."""
        return self._tensors.get(name)

    def take(self, model: ModelProto) -> None:
        """Takes the large constants out of `model`."""
        graph = model.graph
        inputs = {value.name for value in graph.input}
        tensors = list(graph.initializer)
        del graph.initializer[:]
        for tensor in tensors:
            if len(tensor.raw_data) < LARGE_BYTES or tensor.name in inputs:
                graph.initializer.append(tensor)
            else:
                self._keep(graph, tensor)

    def add(self, graph: GraphProto, name: str, array: NDArray[Any]) -> None:
        """A constant of `graph`, kept here if it is large."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        if array.nbytes < LARGE_BYTES:
            graph.initializer.append(tensor)
        else:
            self._keep(graph, tensor)

    def give_back(self, model: ModelProto) -> None:
        """Puts those that `model` still reads back into it."""
        graph = model.graph
        inputs = [value for value in graph.input if value.name not in self._tensors]
        del graph.input[:]
        graph.input.extend(inputs)
        used = names_read(graph)
        graph.initializer.extend(tensor for name, tensor in self._tensors.items() if name in used)

    def _keep(self, graph: GraphProto, tensor: TensorProto) -> None:
        self._tensors[tensor.name] = tensor
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))


class NoneLarge(Large):
    """Keeps nothing: every constant is in the graph."""

    def take(self, model: ModelProto) -> None:
        """Nothing is taken."""

    def add(self, graph: GraphProto, name: str, array: NDArray[Any]) -> None:
        """A constant of `graph`."""
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
