"""Inputs that become constants of the converted model."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from triune.core.errors import InvalidArgumentError


def typed_constants(model: ModelProto, constants: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Constants in the types of the inputs that they are given for. One number does for any shape of one element.

    Raises:
        InvalidArgumentError: there is no such input, or it is of another rank.
    """
    inputs = {value.name: value.type.tensor_type for value in model.graph.input}
    typed: dict[str, NDArray[Any]] = {}
    for name, array in constants.items():
        if name not in inputs:
            known = ", ".join(f"'{each}'" for each in inputs)
            raise InvalidArgumentError(f"there is no input '{name}'; the inputs are {known}")
        tensor = inputs[name]
        given = array.reshape([1] * len(tensor.shape.dim)) if array.size == 1 and tensor.HasField("shape") else array
        if tensor.HasField("shape") and len(tensor.shape.dim) != given.ndim:
            raise InvalidArgumentError(
                f"the constant for input '{name}' is of rank {given.ndim}, the model's of {len(tensor.shape.dim)}"
            )
        typed[name] = given.astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return typed


def bind_constants(model: ModelProto, constants: Mapping[str, NDArray[Any]]) -> None:
    """Make constants of inputs: `constants` as `typed_constants` gives them."""
    graph = model.graph
    for values in (graph.input, graph.initializer):
        for place in reversed([place for place, value in enumerate(values) if value.name in constants]):
            del values[place]
    # Nodes, not initializers: ONNX's inliner does not know those that are no inputs.
    for name, array in constants.items():
        graph.node.insert(0, helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
