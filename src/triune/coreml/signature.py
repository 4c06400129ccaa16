"""The inputs and outputs of a function of a Core ML model, as tensors.

Images are UINT8 of shape (height, width) or (height, width, 3), in RGB order. A classifier's label is one element of
BYTES or INT64; its probabilities are FP64, in the order of the classes.
"""

from dataclasses import replace

from triune.core.datatypes import DataType
from triune.core.errors import UnsupportedError
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

_DATATYPES = {
    DType.FP16: DataType.FP16,
    DType.FP32: DataType.FP32,
    DType.FP64: DataType.FP64,
    DType.INT8: DataType.INT8,
    DType.INT32: DataType.INT32,
    DType.INT64: DataType.INT64,
    DType.STRING: DataType.BYTES,
}


def signature_of(package: Package, name: str) -> Signature:
    """The inputs and outputs of a function of a package, without its states.

    The first dimension is a batch dimension if its range of sizes begins at 1 in every input, no output has another
    size there, no shape depends on values, and there are no states.

    Args:
        package: the package.
        name: the name of a function in its description.

    Raises:
        UnsupportedError: an input or output is not a tensor, or an input has no shape.
    """
    described, program = package.description.functions[name], package.function(name)
    outputs = tuple(_output(feature, program, package.name) for feature in described.outputs)
    inputs = tuple(_input(feature, package.name) for feature in described.inputs)
    if described.states:
        return Signature(inputs, outputs, 0)
    limit = _max_batch_size(described, outputs)
    return Signature(inputs, outputs, limit, Rows.BY_VALUES if are_shapes_by_values(program) else _rows(limit))


def states_of(package: Package, name: str) -> tuple[TensorSpec, ...]:
    """The states of a function of a package, as optional inputs. Raises UnsupportedError if one is not a tensor."""
    return tuple(_state(feature, package.name) for feature in package.description.functions[name].states)


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
    """The precision of a function: "fp16" if any operation computes in fp16, else "fp32"."""
    operations = package.function(function).block.operations
    kinds = (output.type for operation in operations if operation.op != "const" for output in operation.outputs)
    return "fp16" if any(isinstance(kind, TensorType) and kind.dtype is DType.FP16 for kind in kinds) else "fp32"


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
            # Take the shape from the program if it has one: the interface may lack it.
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
    # A scalar has the shape (1,), since Core ML has no arrays of rank 0.
    return tuple(-1 if size is None else size for size in kind.shape) or (1,)


def _rows(limit: int | None) -> Rows:
    """Whether the first dimension is a batch dimension, by `limit`, the result of `_max_batch_size`: unknown if that is
    0, else yes.
    """
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
