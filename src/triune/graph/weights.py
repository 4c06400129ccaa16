"""Keep large weights out of a graph while passes and ONNX's C++ code, which copy it, work on it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from triune.graph.values import names_read
from triune.graph.weight_files import LARGE_BYTES, WeightFile, num_bytes


class Large:
    """The large initializers of a model, kept outside of it. Meanwhile its graph has inputs in their place.

    A protobuf message has at most 2 GiB, every call of shape inference copies the model twice, and passes copy the
    graph often.
    """

    def __init__(self, file: WeightFile | None = None) -> None:
        """`file` is the scratch file for weights that are in no file yet; without it they stay in memory."""
        self._file = file
        self._tensors: dict[str, TensorProto] = {}
        # The names of initializers that are also inputs. They are only the defaults of these inputs, which are kept.
        self._defaults: set[str] = set()

    def get(self, name: str) -> TensorProto | None:
        """The constant of this name if it is kept here, else None."""
        return None if name in self._defaults else self._tensors.get(name)

    def take(self, model: ModelProto) -> None:
        """Remove the large constants from `model` and keep them here."""
        graph = model.graph
        inputs = {value.name for value in graph.input}
        copies = [_copy(tensor) for tensor in graph.initializer]
        del graph.initializer[:]
        for tensor in copies:
            if num_bytes(tensor) < LARGE_BYTES:
                graph.initializer.append(tensor)
            elif tensor.name in inputs:
                self._tensors[tensor.name] = self._moved(tensor)
                self._defaults.add(tensor.name)
            else:
                self._keep(graph, tensor)

    def add(self, graph: GraphProto, tensor: TensorProto) -> None:
        """Add a new constant to `graph`; it is kept here if it is large."""
        if num_bytes(tensor) < LARGE_BYTES:
            graph.initializer.append(tensor)
        else:
            self._keep(graph, tensor)

    def give_back(self, model: ModelProto) -> None:
        """Put the constants that `model` still reads back into it."""
        graph = model.graph
        inputs = [value for value in graph.input if self.get(value.name) is None]
        del graph.input[:]
        graph.input.extend(inputs)
        used = names_read(graph)
        used |= self._defaults
        graph.initializer.extend(tensor for name, tensor in self._tensors.items() if name in used)

    def _keep(self, graph: GraphProto, tensor: TensorProto) -> None:
        self._tensors[tensor.name] = self._moved(tensor)
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))

    def _moved(self, tensor: TensorProto) -> TensorProto:
        return tensor if self._file is None else self._file.moved(tensor)


class NoneLarge(Large):
    """A `Large` that keeps nothing: all constants stay in the graph."""

    def take(self, model: ModelProto) -> None:
        """Leave all constants in the graph."""

    def add(self, graph: GraphProto, tensor: TensorProto) -> None:
        """Add a new constant to `graph`."""
        graph.initializer.append(tensor)


def without_large(model: ModelProto) -> ModelProto:
    """A copy of a model with inputs in the place of its large initializers, for shape inference."""
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = model.graph
    light.graph.name = graph.name
    light.graph.node.extend(graph.node)
    light.graph.input.extend(graph.input)
    light.graph.output.extend(graph.output)
    light.graph.value_info.extend(graph.value_info)
    light.graph.sparse_initializer.extend(graph.sparse_initializer)
    large, inputs = Large(), {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.name not in inputs or num_bytes(tensor) < LARGE_BYTES:
            large.add(light.graph, tensor)
    return light


def tensor_of(name: str, array: NDArray[Any]) -> TensorProto:
    """Create an initializer from an array of any memory order."""
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)


def without_weights(model: ModelProto) -> ModelProto:
    """Copy a model with inputs instead of large weights, for code that does not need the weights."""
    copy = ModelProto()
    copy.CopyFrom(model)
    Large().take(copy)
    return copy


def _copy(tensor: TensorProto) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    return copy
