"""Translate the features of a Core ML model to the server's tensors: specifications, and values.

Images are UINT8 of shape (height, width) or (height, width, 3), in RGB order. A classifier's label is one element of
BYTES or INT64; its probabilities are FP64, in the order of the classes.
"""

from dataclasses import replace
from typing import Any, cast

import numpy as np

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.tensors import Rows, Signature, TensorSpec
from triune.coreml.by_values import are_shapes_by_values
from triune.coreml.description import (
    ArrayFeature,
    ColorSpace,
    DictionaryFeature,
    Feature,
    FunctionDescription,
    ImageFeature,
    ScalarFeature,
    StateFeature,
)
from triune.coreml.feature_values import classes_of
from triune.coreml.mil import DType, Function, TensorType
from triune.coreml.package import Package
from triune.coreml.raising import new_state
from triune.runtimes.coreml.options import FUNCTION, STATES, Settings

_DATATYPES = {
    DType.FP16: DataType.FP16,
    DType.FP32: DataType.FP32,
    DType.FP64: DataType.FP64,
    DType.INT8: DataType.INT8,
    DType.INT32: DataType.INT32,
    DType.INT64: DataType.INT64,
    DType.STRING: DataType.BYTES,
}


def signature_of(package: Package, settings: Settings) -> Signature:
    """The inputs and outputs of a function of a package.

    The first dimension is a batch dimension if every input has a range of sizes there that begins at 1, no output has
    another size there, no shape depends on values, and there are no states. An explicit state NAME becomes the optional
    input NAME and the output "NAME/new", as in a conversion to ONNX.

    Raises:
        InvalidArgumentError: there is no such function, or the option asks for explicit states and there are none.
        UnsupportedError: the function has states that the option does not make explicit, or a feature is not a tensor.
    """
    functions = package.description.functions
    name = package.description.default_function if settings.function is None else settings.function
    if name not in functions:
        known = ", ".join(f"'{each}'" for each in functions)
        raise InvalidArgumentError(
            f"'{package.name}' has no function '{name}': parameter '{FUNCTION}' may name {known}"
        )
    described = functions[name]
    _check_states(described, settings, package.name)
    program = package.function(name)
    outputs = tuple(_output(feature, program, package.name) for feature in described.outputs)
    inputs = tuple(_input(feature, package.name) for feature in described.inputs)
    if not described.states:
        limit = _max_batch_size(described, outputs)
        return Signature(inputs, outputs, limit, Rows.BY_VALUES if are_shapes_by_values(program) else _rows(limit))
    states = tuple(_state(feature, package.name) for feature in described.states)
    news = tuple(replace(spec, name=new_state(spec.name), is_optional=False, is_state=False) for spec in states)
    return Signature((*inputs, *states), (*outputs, *news), 0)


def compiled_signature(interface: FunctionDescription, name: str) -> Signature:
    """The signature of a compiled model, whose program only Core ML reads.

    Raises:
        UnsupportedError: an input has no shape.
    """
    inputs = tuple(_input(feature, name) for feature in interface.inputs)
    outputs = tuple(
        _spec(feature, _DATATYPES[feature.type.dtype], _shape(feature.type))
        for feature in interface.outputs
        if isinstance(feature.type, ArrayFeature)
    )
    return Signature(inputs, outputs, _max_batch_size(interface, outputs))


def precision_of(package: Package, function: str | None) -> str:
    """The precision of a function: "fp16" if any operation computes in it, else "fp32"."""
    operations = package.function(function).block.operations
    kinds = (output.type for operation in operations if operation.op != "const" for output in operation.outputs)
    return "fp16" if any(isinstance(kind, TensorType) and kind.dtype is DType.FP16 for kind in kinds) else "fp32"


def to_output(spec: TensorSpec, value: Any, *, is_scalar: bool = False) -> Array:
    """Convert an output of `coreml.Model.predict` to the array that its specification describes.

    Args:
        spec: the output's specification.
        value: an array, a label, or probabilities by label.
        is_scalar: whether the output has rank 0, for which Core ML returns a vector of one element.
    """
    if isinstance(value, str):
        array: Array = np.empty(1, np.object_)
        array[0] = value.encode()
        return array
    if isinstance(value, dict):
        return np.array(list(cast("dict[object, float]", value).values()), np.float64)
    array = np.atleast_1d(np.asarray(value)).astype(spec.datatype.dtype, copy=False)
    return array.reshape(()) if is_scalar else array


def _check_states(described: FunctionDescription, settings: Settings, package: str) -> None:
    names = ", ".join(f"'{feature.name}'" for feature in described.states)
    if described.states and not settings.has_explicit_states:
        raise UnsupportedError(
            f"function '{described.name}' of '{package}' keeps the states {names} between calls, and a request is one "
            f"call: set parameter '{STATES}' to 'explicit', and they are inputs and outputs, which the client keeps"
        )
    if settings.has_explicit_states and not described.states:
        raise InvalidArgumentError(
            f"parameter '{STATES}' is given, but function '{described.name}' of '{package}' has no states: leave it out"
        )
    taken = {feature.name for feature in described.outputs} & {new_state(feature.name) for feature in described.states}
    if taken:
        raise UnsupportedError(
            f"output '{taken.pop()}' of '{package}' has the name that a state's new value would have"
        )


def _state(feature: Feature, package: str) -> TensorSpec:
    if not isinstance(feature.type, StateFeature):
        raise UnsupportedError(f"state '{feature.name}' of '{package}' is a {type(feature.type).__name__}, no state")
    array = feature.type.array
    return replace(_spec(feature, _DATATYPES[array.dtype], array.shape), is_optional=True, is_state=True)


def _input(feature: Feature, package: str) -> TensorSpec:
    match feature.type:
        case ArrayFeature() as array:
            shape = _shape(array)
            if not shape:
                raise UnsupportedError(f"input '{feature.name}' of '{package}' states no shape; convert the model anew")
            return _spec(feature, _DATATYPES[array.dtype], shape)
        case ImageFeature() as image:
            return _image(feature, image)
        case other:
            raise UnsupportedError(f"input '{feature.name}' of '{package}' is a {type(other).__name__}, no tensor")


def _output(feature: Feature, program: Function, package: str) -> TensorSpec:
    match feature.type:
        case ArrayFeature() as array:
            # The interface may lack the shape, which the program has.
            return _spec(feature, _DATATYPES[array.dtype], _computed_shape(feature.name, program) or _shape(array))
        case ImageFeature() as image:
            return _image(feature, image)
        case ScalarFeature(dtype):
            return _spec(feature, _DATATYPES[dtype], (1,))
        case DictionaryFeature():
            return _spec(feature, DataType.FP64, (len(classes_of(program)),))
        case other:
            raise UnsupportedError(f"output '{feature.name}' of '{package}' is a {type(other).__name__}, no tensor")


def _spec(feature: Feature, datatype: DataType, shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(feature.name, datatype, shape, (None,) * len(shape), feature.is_optional)


def _image(feature: Feature, image: ImageFeature) -> TensorSpec:
    datatype = DataType.FP16 if image.color_space is ColorSpace.GRAYSCALE_FLOAT16 else DataType.UINT8
    sides = (-1, -1) if image.is_flexible else (image.height, image.width)
    return _spec(feature, datatype, sides if image.color_space.num_channels == 1 else (*sides, 3))


def _shape(array: ArrayFeature) -> tuple[int, ...]:
    if array.bounds:
        return tuple(bounds.lower if bounds.lower == bounds.upper else -1 for bounds in array.bounds)
    if array.shapes:
        return tuple(sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*array.shapes, strict=False))
    return array.shape


def _computed_shape(name: str, program: Function) -> tuple[int, ...]:
    """The shape of a value in the program; () if the rank is unknown."""
    values = [*program.inputs, *(output for operation in program.block.operations for output in operation.outputs)]
    kind = next((value.type for value in values if value.name == name), None)
    if not isinstance(kind, TensorType) or kind.shape is None:
        return ()
    # Core ML has no arrays of rank 0.
    return tuple(-1 if size is None else size for size in kind.shape) or (1,)


def _rows(limit: int | None) -> Rows:
    """Whether the first dimension is a batch dimension: see `signature_of`."""
    return Rows.UNKNOWN if limit == 0 else Rows.SAME


def _max_batch_size(described: FunctionDescription, outputs: tuple[TensorSpec, ...]) -> int | None:
    limits: list[int] = []
    for feature in described.inputs:
        array = feature.type
        if not isinstance(array, ArrayFeature) or not array.bounds:
            return 0
        first = array.bounds[0]
        if first.lower > 1 or first.upper == first.lower:
            return 0
        if first.upper is not None:
            limits.append(first.upper)
    if any(not spec.shape or spec.shape[0] != -1 for spec in outputs):
        return 0
    return min(limits, default=None)
