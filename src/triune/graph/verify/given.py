"""Check the arrays that a user gives for a verification with --input."""

from collections.abc import Collection, Mapping

from onnx import ModelProto, helper

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError


def check_given(model: ModelProto, given: Mapping[str, Array], constants: Collection[str] = ()) -> None:
    """Check that a user's arrays fit the model's inputs.

    Raises:
        InvalidArgumentError: there is no input of that name, or it becomes a constant, or the type or shape is wrong.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value.type.tensor_type for value in model.graph.input if value.name not in weights}
    for name, array in given.items():
        if name not in inputs:
            known = ", ".join(f"'{each}'" for each in inputs) or "none"
            raise InvalidArgumentError(f"there is no input '{name}' to give; the inputs are {known}")
        if name in constants:
            raise InvalidArgumentError(f"input '{name}' is given, and becomes a constant; leave one out")
        dtype = helper.tensor_dtype_to_np_dtype(inputs[name].elem_type)
        if array.dtype != dtype:
            raise InvalidArgumentError(f"input '{name}' is given as {array.dtype}; the model takes {dtype}")
        dims = inputs[name].shape.dim
        fits = len(dims) == array.ndim and all(
            dim.dim_value == size or dim.dim_value < 0 or not dim.HasField("dim_value")
            for dim, size in zip(dims, array.shape, strict=True)
        )
        if inputs[name].HasField("shape") and not fits:
            sizes = ", ".join(str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)
            raise InvalidArgumentError(f"input '{name}' has shape {list(array.shape)}; the model takes [{sizes}]")
