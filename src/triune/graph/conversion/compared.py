"""Is a converted model the one that it was made of? What the answers of both, on the same inputs, say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from triune.core.errors import InternalError, UnsupportedError
from triune.graph.conversion.shapes import InputShape, Range

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


def sized(model: ModelProto, shapes: Mapping[str, InputShape]) -> ModelProto:
    """The model's interface with a size for every dimension that the user gave limits for."""
    sized = ModelProto()
    sized.graph.input.extend(model.graph.input)
    for tensor in model.graph.initializer:
        # Only its name counts: inputs that have a default need no sample.
        sized.graph.initializer.add().name = tensor.name
    for value in sized.graph.input:
        if value.name in shapes:
            _set_sizes(value, shapes[value.name].choices[0])
    return sized


def _set_sizes(value: Any, dims: Sequence[int | Range]) -> None:
    shape = value.type.tensor_type.shape
    while len(shape.dim) < len(dims):
        shape.dim.add()
    for dim, size in zip(shape.dim, dims, strict=True):
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
    try:
        session = library.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(None, {name: array for name, array in inputs.items() if name in wanted})
    # ONNX Runtime's own exceptions have no common root but this.
    except Exception as error:
        raise UnsupportedError(
            f"ONNX Runtime does not run the model on sample inputs, so it was not verified: {error}"
        ) from error
    return dict(zip([value.name for value in model.graph.output], results, strict=True))
