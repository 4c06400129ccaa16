"""Replace inputs by constants, and convert constants to the element types of Apple's runtimes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.weight_files import array_of


def typed_constants(model: ModelProto, constants: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Cast constants to the types of the inputs that they replace. A single number fits any input of one element.

    Raises:
        InvalidArgumentError: there is no input of a constant's name, the shapes differ, or the input's type cannot
            represent the value.
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
                f"the constant for input '{name}' has rank {given.ndim}, the input has rank {len(tensor.shape.dim)}"
            )
        sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        if any(size not in (None, found) for size, found in zip(sizes, given.shape, strict=False)):
            shown = ", ".join("?" if size is None else str(size) for size in sizes)
            raise InvalidArgumentError(
                f"the constant for input '{name}' has the shape {list(given.shape)}, the input has [{shown}]; give an "
                "array of that shape in a .npy file"
            )
        typed[name] = _cast(name, given, helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return typed


def _cast(name: str, given: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Cast a constant to the input's type: floats may be rounded, but integers and booleans must keep their value."""
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            array = given.astype(dtype)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidArgumentError(f"the constant for input '{name}' cannot be cast to {dtype}: {error}") from error
    if dtype.kind in "iub" and np.any(array != given):
        raise InvalidArgumentError(f"the constant for input '{name}' is {given.tolist()}; the input holds {dtype}")
    return array


def bind_constants(model: ModelProto, constants: Mapping[str, NDArray[Any]]) -> None:
    """Replace inputs by constants; `constants` is the result of `typed_constants`."""
    graph = model.graph
    for values in (graph.input, graph.initializer):
        for position in reversed([at for at, value in enumerate(values) if value.name in constants]):
            del values[position]
    # Use Constant nodes: ONNX's inliner expects every initializer to be an input as well.
    for name, array in constants.items():
        graph.node.insert(0, helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))


_FLOATS: Mapping[int, Any] = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float32,
}


def narrow_constant(tensor: TensorProto, runtime: str) -> NDArray[Any]:
    """Convert a constant to an element type that Apple's runtimes compute in: fp16, fp32, int32 or bool.

    Args:
        tensor: a constant of a graph after `Narrow`, which leaves INT64 only where ONNX requires it.
        runtime: the name of the target runtime in messages: "Core ML".

    Raises:
        UnsupportedError: the constant has another type, is empty, or has an integer outside int32.
    """
    if 0 in tensor.dims:
        raise UnsupportedError(f"constant '{tensor.name}' is empty, and {runtime} has no empty tensors; remove its use")
    array = array_of(tensor)
    if tensor.data_type in _FLOATS:
        return array.astype(_FLOATS[tensor.data_type], copy=False)
    if array.dtype.kind in "iu" and tensor.data_type != TensorProto.BFLOAT16:
        return _as_int32(array, tensor.name, runtime)
    if tensor.data_type != TensorProto.BOOL:
        kind = helper.tensor_dtype_to_string(tensor.data_type)
        remedy = "work on text outside the model" if tensor.data_type == TensorProto.STRING else "cast it to FLOAT"
        raise UnsupportedError(f"constant '{tensor.name}' is of {kind}, which {runtime} does not have; {remedy}")
    return array


def _as_int32(array: NDArray[Any], name: str, runtime: str) -> NDArray[np.int32]:
    limits = np.iinfo(np.int32)
    # In slices, the largest and the lowest INT64 mean "to the end". Replace them by the limits of int32.
    ends = np.iinfo(np.int64)
    if array.dtype == np.int64:
        array = np.where(array >= ends.max - 1, limits.max, np.where(array <= ends.min + 1, limits.min, array))
    if array.min() < limits.min or array.max() > limits.max:
        raise UnsupportedError(
            f"constant '{name}' has integers beyond int32, the widest type of {runtime}; use smaller ones"
        )
    return array.astype(np.int32)
