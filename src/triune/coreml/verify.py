"""Is a converted model the one that it was made of? Both on the same sample inputs."""

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto

from triune.core.errors import InvalidArgumentError
from triune.coreml.description import ArrayFeature
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering.lower import Lowered
from triune.coreml.lowering.options import LowerOptions
from triune.coreml.mil import Array, StateType
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import Package, read_package
from triune.coreml.raising import new_state
from triune.graph.check import sample_inputs
from triune.graph.conversion.compared import FREE_SIZE, OutputError, compared, run_onnx, sized
from triune.graph.conversion.constants import typed_constants
from triune.graph.passes.narrow import narrow_array


def verify_lowered(
    model: ModelProto, lowered: Lowered, options: LowerOptions, given: Mapping[str, Array]
) -> list[OutputError]:
    """An ONNX model in ONNX Runtime, beside the package made of it in Triune's own.

    Args:
        model: the source.
        lowered: the package made of it.
        options: how it was made.
        given: inputs that passed `check_given`, by the source's names. The others are made up.

    Raises:
        InvalidArgumentError: an array has a shape that the package does not take.
        UnsupportedError: an input is none that can be made up, or a runtime does not do the model.
        InternalError: the result is of another shape.
    """
    samples = sample_inputs(sized(model, options.shapes, given), free_size=FREE_SIZE)
    samples.update(given)
    samples.update(typed_constants(model, options.constants))
    package = read_package(lowered.path)
    inputs = {lowered.inputs[name]: _passed(name, array) for name, array in samples.items() if name in lowered.inputs}
    for name in given:
        _check_shape(name, inputs[lowered.inputs[name]], lowered.inputs[name], package)
    expected = run_onnx(model, samples)
    results, _ = OnnxExecutor(package).run(inputs, {})
    return [compared(name, array, results[lowered.outputs[name]]) for name, array in expected.items()]


def verify_raised(
    package: Package, function: str | None, model: ModelProto, given: Mapping[str, Array]
) -> list[OutputError]:
    """A function of a package in Triune's reference interpreter, beside the ONNX model raised of it in ONNX Runtime.

    Args:
        package: the source.
        function: its name; the default function for None.
        model: raised of that.
        given: inputs and states that passed `check_given`. The others are made up.

    Raises:
        InvalidArgumentError: the model refuses an input.
        UnsupportedError: the interpreter or ONNX Runtime does not do the model.
        InternalError: the result is of another shape.
    """
    states = [each.name for each in package.function(function).inputs if isinstance(each.type, StateType)]
    samples = sample_inputs(sized(model, {}, given), free_size=FREE_SIZE)
    samples.update(given)
    inputs = {name: array for name, array in samples.items() if name not in states}
    outputs, after = Interpreter(package, function).run(inputs, {name: samples[name] for name in states})
    results = run_onnx(model, samples)
    expected = {**outputs, **{new_state(name): array for name, array in after.items()}}
    return [compared(name, array, results[name]) for name, array in expected.items() if name in results]


def _check_shape(name: str, array: Array, feature_name: str, package: Package) -> None:
    description = package.description
    features = description.functions[description.default_function].inputs
    feature = next(each.type for each in features if each.name == feature_name)
    if isinstance(feature, ArrayFeature) and not feature.allows(array.shape):
        raise InvalidArgumentError(
            f"input '{name}' has shape {list(array.shape)}; the package takes {feature.limits()}: give another array, "
            "or other limits with --shape"
        )


def _passed(name: str, array: Array) -> Array:
    """As the package takes it: whole numbers and truths as int32, no scalars."""
    narrow = narrow_array(name, array)
    narrow = narrow.astype(np.int32) if narrow.dtype == np.bool_ else narrow
    return narrow.reshape(1) if narrow.ndim == 0 else narrow
