"""Reads the description of a Core ML model out of its specification."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.description import (
    ArrayFeature,
    Bounds,
    ColorSpace,
    Description,
    DictionaryFeature,
    Feature,
    FeatureType,
    FunctionDescription,
    ImageFeature,
    ScalarFeature,
    SequenceFeature,
    StateFeature,
)
from triune.coreml.mil import DType

_MAIN = "main"
_LARGEST = 2**31 - 1
_KINDS = ("input", "output", "state")

_ARRAY_DTYPES = {
    65568: DType.FP32,
    65600: DType.FP64,
    65552: DType.FP16,
    131104: DType.INT32,
    131080: DType.INT8,
}


def read_description(proto: Any, file: str) -> Description:
    """Read a specification's ModelDescription.

    Args:
        proto: `Model_pb2.ModelDescription`.
        file: the file's name in error messages.

    Raises:
        InvalidArgumentError: a feature has no type, a shape is negative, a name appears twice.
        UnsupportedError: a feature's type is unknown.
    """
    described = list(proto.functions)
    if described:
        functions = [_function(function, function.name, file) for function in described]
        default = str(proto.defaultFunctionName) or functions[0].name
    else:
        functions = [_function(proto, _MAIN, file)]
        default = _MAIN
    by_name = {function.name: function for function in functions}
    if len(by_name) < len(functions):
        raise InvalidArgumentError(f"'{file}': a function is described twice: {[each.name for each in functions]}")
    if default not in by_name:
        raise InvalidArgumentError(f"'{file}': the default function '{default}' is not among {sorted(by_name)}")
    given = proto.metadata
    metadata = {str(key): str(value) for key, value in given.userDefined.items()}
    fields = {
        "author": given.author,
        "license": given.license,
        "version": given.versionString,
        "description": given.shortDescription,
    }
    metadata.update({key: str(value) for key, value in fields.items() if value})
    return Description(MappingProxyType(by_name), default, MappingProxyType(metadata))


def _function(proto: Any, name: str, file: str) -> FunctionDescription:
    where = f"'{file}', function '{name}'"
    groups = {kind: tuple(_feature(each, f"{where}, {kind}") for each in getattr(proto, kind)) for kind in _KINDS}
    # List an output once if the program returns the value twice: both outputs have the value's name, so that a caller
    # sees one.
    groups["output"] = tuple(dict.fromkeys(groups["output"]))
    for kind in _KINDS:
        names = [feature.name for feature in groups[kind]]
        if len(set(names)) < len(names):
            raise InvalidArgumentError(f"{where}: an {kind} is described twice: {names}")
    return FunctionDescription(
        name,
        groups["input"],
        groups["output"],
        groups["state"],
        str(proto.predictedFeatureName),
        str(proto.predictedProbabilitiesName),
    )


def _feature(proto: Any, where: str) -> Feature:
    where = f"{where} '{proto.name}'"
    return Feature(str(proto.name), _type(proto.type, where), bool(proto.type.isOptional), str(proto.shortDescription))


def _type(proto: Any, where: str) -> FeatureType:
    match proto.WhichOneof("Type"):
        case "multiArrayType":
            return _array(proto.multiArrayType, where)
        case "imageType":
            return _image(proto.imageType, where)
        case "int64Type":
            return ScalarFeature(DType.INT64)
        case "doubleType":
            return ScalarFeature(DType.FP64)
        case "stringType":
            return ScalarFeature(DType.STRING)
        case "dictionaryType":
            has_int64 = proto.dictionaryType.WhichOneof("KeyType") == "int64KeyType"
            return DictionaryFeature(DType.INT64 if has_int64 else DType.STRING)
        case "sequenceType":
            has_int64 = proto.sequenceType.WhichOneof("Type") == "int64Type"
            bounds = _bounds(proto.sequenceType.sizeRange, where)
            return SequenceFeature(DType.INT64 if has_int64 else DType.STRING, bounds)
        case "stateType":
            return StateFeature(_array(proto.stateType.arrayType, where))
        case None:
            raise InvalidArgumentError(f"{where}: it has no type")
        case other:
            raise UnsupportedError(f"{where}: features of type '{other}' are not known")


def _array(proto: Any, where: str) -> ArrayFeature:
    dtype = _ARRAY_DTYPES.get(proto.dataType)
    if dtype is None:
        raise UnsupportedError(f"{where}: multi-arrays of element type {proto.dataType} are not known")
    shape = _shape(proto.shape, where)
    shapes: tuple[tuple[int, ...], ...] = ()
    bounds: tuple[Bounds, ...] = ()
    match proto.WhichOneof("ShapeFlexibility"):
        case "enumeratedShapes":
            listed = tuple(_shape(each.shape, where) for each in proto.enumeratedShapes.shapes)
            # The default shape is always allowed, even if it is not listed.
            shapes = tuple(dict.fromkeys((*((shape,) if shape else ()), *listed)))
        case "shapeRange":
            bounds = tuple(_bounds(each, where) for each in proto.shapeRange.sizeRanges)
        case _:
            pass
    default: float | None = None
    chosen = proto.WhichOneof("defaultOptionalValue")
    if chosen is not None:
        default = getattr(proto, chosen)
    return ArrayFeature(dtype, shape, shapes, bounds, default)


def _image(proto: Any, where: str) -> ImageFeature:
    spaces = {10: ColorSpace.GRAYSCALE, 20: ColorSpace.RGB, 30: ColorSpace.BGR, 40: ColorSpace.GRAYSCALE_FLOAT16}
    space = spaces.get(proto.colorSpace)
    if space is None:
        raise UnsupportedError(f"{where}: images of color space {proto.colorSpace} are not known")
    width, height = _shape((proto.width, proto.height), where)
    match proto.WhichOneof("SizeFlexibility"):
        case "enumeratedSizes":
            listed = [_shape((each.width, each.height), where) for each in proto.enumeratedSizes.sizes]
            sizes = tuple(dict.fromkeys(((width, height), *((size[0], size[1]) for size in listed))))
            return ImageFeature(space, width, height, sizes)
        case "imageSizeRange":
            ranges = proto.imageSizeRange
            bounds = _bounds(ranges.widthRange, where), _bounds(ranges.heightRange, where)
            return ImageFeature(space, width, height, (), *bounds)
        case _:
            return ImageFeature(space, width, height)


def _shape(sizes: Sequence[int], where: str) -> tuple[int, ...]:
    shape = tuple(int(size) for size in sizes)
    if any(not 0 <= size <= _LARGEST for size in shape):
        raise InvalidArgumentError(f"{where}: the shape {list(shape)} has a size that is not from 0 to {_LARGEST}")
    return shape


def _bounds(proto: Any, where: str) -> Bounds:
    lower, upper = int(proto.lowerBound), int(proto.upperBound)
    if lower > _LARGEST or 0 <= upper < lower:
        raise InvalidArgumentError(f"{where}: the sizes {lower} to {upper} are not a range")
    return Bounds(lower, None if upper < 0 else upper)
