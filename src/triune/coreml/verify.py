"""Is a converted model the one that it was made of? Both on the same sample inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

from triune.core.errors import InternalError, UnsupportedError
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering.lower import Lowered
from triune.coreml.lowering.options import InputShape, LowerOptions, Range, typed_constants
from triune.coreml.mil import Array, StateType
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import Package, read_package
from triune.coreml.raising import new_state
from triune.graph.check import sample_inputs
from triune.graph.passes.narrow import narrow_array

_FREE_SIZE = 3
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


def verify_lowered(model: ModelProto, lowered: Lowered, options: LowerOptions) -> list[OutputError]:
    """An ONNX model in ONNX Runtime, beside the package made of it in Triune's own.

    Raises:
        UnsupportedError: an input is none that can be made up, or a runtime does not do the model.
        InternalError: the result is of another shape.
    """
    given = sample_inputs(_sized(model, options.shapes), free_size=_FREE_SIZE)
    given.update(typed_constants(model, options.constants))
    expected = _run_onnx(model, given)
    inputs = {lowered.inputs[name]: _passed(name, array) for name, array in given.items() if name in lowered.inputs}
    results, _ = OnnxExecutor(read_package(lowered.path)).run(inputs, {})
    return [compared(name, array, results[lowered.outputs[name]]) for name, array in expected.items()]


def verify_raised(package: Package, function: str | None, model: ModelProto) -> list[OutputError]:
    """A function of a package in Triune's reference interpreter, beside the ONNX model raised of it in ONNX Runtime.

    Raises:
        UnsupportedError: the interpreter or ONNX Runtime does not do the model.
        InternalError: the result is of another shape.
    """
    states = [each.name for each in package.function(function).inputs if isinstance(each.type, StateType)]
    given = sample_inputs(model, free_size=_FREE_SIZE)
    inputs = {name: array for name, array in given.items() if name not in states}
    outputs, after = Interpreter(package, function).run(inputs, {name: given[name] for name in states})
    results = _run_onnx(model, given)
    expected = {**outputs, **{new_state(name): array for name, array in after.items()}}
    return [compared(name, array, results[name]) for name, array in expected.items() if name in results]


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


def _sized(model: ModelProto, shapes: Mapping[str, InputShape]) -> ModelProto:
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
        dim.dim_value = min(max(size.low, _FREE_SIZE), size.high) if isinstance(size, Range) else size


def _passed(name: str, array: Array) -> Array:
    """As the package takes it: whole numbers and truths as int32, no scalars."""
    narrow = narrow_array(name, array)
    narrow = narrow.astype(np.int32) if narrow.dtype == np.bool_ else narrow
    return narrow.reshape(1) if narrow.ndim == 0 else narrow


def _run_onnx(model: ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
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
