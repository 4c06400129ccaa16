"""Is a converted model the one that it was made of? What the answers of both, on the same inputs, say."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.graph.conversion.shapes import InputShape, Range
from triune.graph.session import set_aside

Array: TypeAlias = NDArray[Any]

FREE_SIZE = 3
"""The size of a free dimension in sample inputs."""

_NO_LOG = 4


@dataclass(frozen=True, slots=True)
class OutputError:
    """How far an output of the result is from the source's.

    Attributes:
        name: the source's.
        shape: of the sample's answer.
        error: the largest absolute difference; infinite where one is no number and the other is.
        largest: the largest absolute value of the source, to compare with.
    """

    name: str
    shape: tuple[int, ...]
    error: float
    largest: float


def check_given(model: ModelProto, given: Mapping[str, Array], constants: Collection[str] = ()) -> None:
    """Are these arrays for inputs that the model has, of the types that it takes?

    Raises:
        InvalidArgumentError: an array is for no input or for one that becomes a constant, or of another type or rank.
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
            dim.dim_value == size or not dim.HasField("dim_value") for dim, size in zip(dims, array.shape, strict=True)
        )
        if inputs[name].HasField("shape") and not fits:
            sizes = ", ".join(str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)
            raise InvalidArgumentError(f"input '{name}' has shape {list(array.shape)}; the model takes [{sizes}]")


def compared(name: str, expected: Array, actual: Array) -> OutputError:
    """Raises InternalError where the shapes differ; scalars are vectors of one element to Core ML."""
    shape = expected.shape or (1,)
    if (actual.shape or (1,)) != shape:
        raise InternalError(f"output '{name}' is of shape {actual.shape} after the conversion, {shape} before")
    one, other = (array.reshape(shape).astype(np.float64) for array in (expected, actual))
    with np.errstate(invalid="ignore"):
        difference = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0.0, np.abs(one - other))
    difference = np.where(np.isnan(difference), np.inf, difference)
    finite = np.abs(one[np.isfinite(one)])
    return OutputError(name, shape, float(np.max(difference, initial=0.0)), float(np.max(finite, initial=0.0)))


def sized(model: ModelProto, shapes: Mapping[str, InputShape], given: Mapping[str, Array]) -> ModelProto:
    """The interface of what is not given, with a size for every dimension that the user gave limits for.

    Dimensions that bear the name of one of a given array have its size.
    """
    named: dict[str, int] = {}
    for value in model.graph.input:
        if value.name in given:
            named.update(zip((dim.dim_param for dim in _dims(value)), given[value.name].shape, strict=False))
    named.pop("", None)
    sized = ModelProto()
    sized.graph.input.extend(value for value in model.graph.input if value.name not in given)
    for tensor in model.graph.initializer:
        # Only its name counts: inputs that have a default need no sample.
        sized.graph.initializer.add().name = tensor.name
    for value in sized.graph.input:
        bound = {axis: named[dim.dim_param] for axis, dim in enumerate(_dims(value)) if dim.dim_param in named}
        if value.name in shapes:
            _set_sizes(value, shapes[value.name].choices[0])
        for axis, size in bound.items():
            _dims(value)[axis].dim_value = size
    return sized


def _dims(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def _set_sizes(value: Any, dims: Sequence[int | Range]) -> None:
    while len(_dims(value)) < len(dims):
        _dims(value).add()
    for dim, size in zip(_dims(value), dims, strict=True):
        dim.dim_value = min(max(size.low, FREE_SIZE), size.high) if isinstance(size, Range) else size


def run_onnx(model: ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by ONNX Runtime; inputs that the model has not are passed over.

    Raises:
        UnsupportedError: ONNX Runtime does not do the model, or not with these inputs.
    """
    import onnxruntime

    library: Any = onnxruntime
    options = library.SessionOptions()
    options.log_severity_level = _NO_LOG
    wanted = {value.name for value in model.graph.input}
    light = ModelProto()
    light.CopyFrom(model)
    # Kept until the session has run, which reads them where they are.
    weights = set_aside(light, options, library)
    try:
        session = library.InferenceSession(light.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(None, {name: array for name, array in inputs.items() if name in wanted})
    # ONNX Runtime's own exceptions have no common root but this.
    except Exception as error:
        raise UnsupportedError(
            f"ONNX Runtime does not run the model on these inputs, so it was not verified: {error}; give inputs that "
            "it takes with --input"
        ) from error
    del weights
    return dict(zip([value.name for value in model.graph.output], results, strict=True))
