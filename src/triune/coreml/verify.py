"""Verify a conversion: run the model and its converted form on the same inputs, and compare the outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from triune.core.errors import InvalidArgumentError
from triune.coreml.description import ArrayFeature, Bounds, Feature, ImageFeature
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering.lower import Lowered
from triune.coreml.lowering.options import LowerOptions
from triune.coreml.mil import Array, StateType
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import Package, read_package
from triune.coreml.raising import new_state
from triune.graph.audit.inputs import InputSet
from triune.graph.blame import Gates, Verified, verify_halved
from triune.graph.conversion.constants import typed_constants
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import Dim, InputShape, Range
from triune.graph.conversion.text import numbers_of
from triune.graph.half_rounding import with_half_rounding
from triune.graph.passes.narrow_values import narrow_array
from triune.graph.precision import TOLERANCES, precision_of
from triune.graph.verify import OnnxModel, OutputVerdict, narrow_samples_of, samples_of, sized_samples_of, verify

_LARGEST = 2**31 - 1

_ROUNDED = 2.0**-10
"""The tolerance for the next value of a state, relative to its largest value: it is rounded to fp16."""


def verify_lowered(
    model: ModelProto,
    lowered: Lowered,
    options: LowerOptions,
    given: Mapping[str, Array],
    samples: Sequence[Mapping[str, Array]] = (),
) -> Verified:
    """Compare an ONNX model in ONNX Runtime with its lowered function in Triune's executor. States are rounded to fp16,
    as Core ML has them, for both.

    Args:
        model: the source model.
        lowered: the function that it was lowered to.
        options: the options of the conversion.
        given: inputs that passed `check_given`, by the source's names. The others are made up.
        samples: whole sets of inputs of the user's; if there are any, only these are compared.

    Raises:
        InvalidArgumentError: an array has a shape that the package does not take.
        UnsupportedError: values cannot be made up for an input, or a runtime cannot run the model.
        InternalError: an output of the function has another shape than the model's.
    """
    package = read_package(lowered.path)
    for name, array in given.items():
        if name in lowered.inputs:
            _check_shape(name, _as_package_input(name, array), lowered, package)
    model, _ = numbers_of(model)
    known = {**given, **typed_constants(model, options.constants)}
    precision = "fp32" if options.precision is Precision.FP32 else "fp16"
    tolerance = max(TOLERANCES[precision], TOLERANCES[precision_of(model)], _ROUNDED if options.states else 0.0)
    sets = samples_of(model, options.shapes, known, samples, is_half=tolerance > TOLERANCES["fp32"])
    makes_up = precision == "fp16" and not samples
    narrow = narrow_samples_of(model, options.shapes, known) if makes_up else []
    sets, narrow = ([_with_rounded_states(each, lowered) for each in some] for some in (sets, narrow))
    sized = sized_samples_of(model, options.shapes, known) if makes_up else []
    gates = Gates(model)
    source, executor = OnnxModel(gates.model, tolerance), OnnxExecutor(package, lowered.function)

    def result(arrays: Mapping[str, Array]) -> dict[str, Array]:
        taken = {name: array for name, array in arrays.items() if name in lowered.inputs}
        outputs, after = executor.run(
            {lowered.inputs[name]: _as_package_input(name, array) for name, array in taken.items()},
            {other: np.atleast_1d(_as_state(arrays[name])) for name, other in lowered.states.items()},
        )
        found = {name: outputs[other] for name, other in lowered.outputs.items()}
        return found | {options.states[name]: after[other] for name, other in lowered.states.items()}

    return verify_halved(model, options, sets, narrow, sized, source, source.run, gates, result, tolerance)


def verify_raised(
    package: Package, function: str | None, model: ModelProto, given: Mapping[str, Array]
) -> list[OutputVerdict]:
    """Compare a function in Triune's reference interpreter with its raised ONNX model in ONNX Runtime.

    Made-up sizes are within the limits that the package declares; if sizes within them contradict one another, the
    default shapes are used.

    Args:
        package: the source package.
        function: the name of the function; None takes the default one.
        model: the ONNX model raised from it.
        given: inputs and states that passed `check_given`. The others are made up.

    Raises:
        InvalidArgumentError: the source refuses all inputs.
        UnsupportedError: the interpreter or ONNX Runtime cannot run the model.
        InternalError: an output of the ONNX model has another shape than the function's.
    """
    name = function or package.description.default_function
    states = [each.name for each in package.function(name).inputs if isinstance(each.type, StateType)]
    features = package.description.functions[name].inputs
    tolerance = TOLERANCES[precision_of(model)]
    is_half = tolerance > TOLERANCES["fp32"]
    result, interpreter = OnnxModel(with_half_rounding(model), tolerance), Interpreter(package, name)

    def source(arrays: Mapping[str, Array]) -> dict[str, Array]:
        inputs = {name: array for name, array in arrays.items() if name not in states}
        outputs, after = interpreter.run(inputs, {name: arrays[name] for name in states})
        return {**outputs, **{new_state(name): array for name, array in after.items()}}

    declared = declared_shapes(package, name)
    defaults = {each.name: shape for each in features if (shape := _default(each)) is not None}
    sets, otherwise = (samples_of(model, shapes, given, is_half=is_half) for shapes in (declared, defaults))
    return verify(sets, source, result.run, result, tolerance, otherwise=otherwise)


def declared_shapes(package: Package, function: str) -> dict[str, InputShape]:
    """The shapes that the inputs of a function may have, by input; those that have only one are left out."""
    features = package.description.functions[function].inputs
    return {each.name: shape for each in features if (shape := _declared(each)) is not None}


def _declared(feature: Feature) -> InputShape | None:
    """The shapes that an input may have; None if it has only one."""
    match feature.type:
        case ArrayFeature(shapes=shapes) if shapes:
            return InputShape(shapes)
        case ArrayFeature(bounds=bounds) if bounds:
            return InputShape((tuple(map(_dim, bounds)),))
        case ImageFeature(sizes=sizes, color_space=space) if sizes:
            return InputShape(tuple((1, space.num_channels, height, width) for width, height in sizes))
        case ImageFeature(width_bounds=Bounds() as width, height_bounds=Bounds() as height, color_space=space):
            return InputShape(((1, space.num_channels, _dim(height), _dim(width)),))
        case _:
            return None


def _default(feature: Feature) -> InputShape | None:
    match feature.type:
        case ArrayFeature(shape=shape) if shape:
            return InputShape((shape,))
        case ImageFeature(width=width, height=height, color_space=space):
            return InputShape(((1, space.num_channels, height, width),))
        case _:
            return None


def _dim(bounds: Bounds) -> Dim:
    if bounds.lower == bounds.upper:
        return bounds.lower
    return Range(bounds.lower, _LARGEST if bounds.upper is None else bounds.upper)


def _check_shape(name: str, array: Array, lowered: Lowered, package: Package) -> None:
    features = package.description.functions[lowered.function].inputs
    feature = next(each.type for each in features if each.name == lowered.inputs[name])
    if isinstance(feature, ArrayFeature) and not feature.allows(array.shape):
        raise InvalidArgumentError(
            f"input '{name}' has shape {list(array.shape)}; the package takes {feature.limits()}: give another array, "
            "or other limits with --shape"
        )


def _with_rounded_states(each: InputSet, lowered: Lowered) -> InputSet:
    rounded = {name: _as_state(each.arrays[name]).astype(each.arrays[name].dtype) for name in lowered.states}
    return replace(each, arrays={**each.arrays, **rounded})


def _as_state(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(np.float16)


def _as_package_input(name: str, array: Array) -> Array:
    """Convert an array to an input of the package: integers and bool to int32, a scalar to shape [1]."""
    narrow = narrow_array(name, array)
    narrow = narrow.astype(np.int32) if narrow.dtype == np.bool_ else narrow
    return narrow.reshape(1) if narrow.ndim == 0 else narrow
