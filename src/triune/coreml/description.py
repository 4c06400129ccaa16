"""The description of a Core ML model: its functions' inputs, outputs and states, with the limits of shapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeAlias

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import DType

_MAIN = "main"
_LARGEST = 2**31 - 1


class ColorSpace(Enum):
    """The layout of an image's pixels; the value is the specification's name."""

    GRAYSCALE = "GRAYSCALE"
    GRAYSCALE_FLOAT16 = "GRAYSCALE_FLOAT16"
    RGB = "RGB"
    BGR = "BGR"

    @property
    def num_channels(self) -> int:
        """The number of channels: 1 or 3."""
        return 3 if self in (ColorSpace.RGB, ColorSpace.BGR) else 1


@dataclass(frozen=True, slots=True)
class Bounds:
    """The sizes that a dimension may have, from `lower` to `upper`; None means no limit."""

    lower: int
    upper: int | None

    def __contains__(self, size: object) -> bool:
        """Whether a size is allowed."""
        return isinstance(size, int) and size >= self.lower and (self.upper is None or size <= self.upper)

    def __str__(self) -> str:
        """The bounds in the command line's form: "1..512", "3", or "1.." without an upper limit."""
        if self.lower == self.upper:
            return str(self.lower)
        return f"{self.lower}..{'' if self.upper is None else self.upper}"


@dataclass(frozen=True, slots=True)
class ArrayFeature:
    """A multi-array.

    Attributes:
        dtype: fp16, fp32, fp64, int32 or int8.
        shape: the default shape; empty where the specification gives none (outputs of unknown shape).
        shapes: all allowed shapes, if the specification lists them; else empty.
        bounds: the limits of each dimension, if the specification states ranges; else empty.
        default: the value that fills an optional input that is omitted.
    """

    dtype: DType
    shape: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...] = ()
    bounds: tuple[Bounds, ...] = ()
    default: float | None = None

    @property
    def is_flexible(self) -> bool:
        """Whether more than one shape is allowed."""
        return bool(self.shapes or self.bounds)

    def allows(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape may be given."""
        if self.shapes:
            return tuple(shape) in self.shapes
        if self.bounds:
            return len(shape) == len(self.bounds) and all(
                size in bounds for size, bounds in zip(shape, self.bounds, strict=True)
            )
        return tuple(shape) == self.shape

    def limits(self) -> str:
        """The allowed shapes, for messages."""
        if self.shapes:
            return "one of " + ", ".join(str(list(shape)) for shape in self.shapes)
        if self.bounds:
            return "[" + ", ".join(str(bounds) for bounds in self.bounds) + "]"
        return str(list(self.shape))


@dataclass(frozen=True, slots=True)
class ImageFeature:
    """An image. The program sees fp32 or fp16 of (1, channels, height, width), values 0 to 255.

    Attributes:
        sizes: all allowed pairs (width, height), if the specification lists them; else empty.
        width_bounds: the limits of the width, if the specification states ranges.
        height_bounds: the limits of the height, likewise.
    """

    color_space: ColorSpace
    width: int
    height: int
    sizes: tuple[tuple[int, int], ...] = ()
    width_bounds: Bounds | None = None
    height_bounds: Bounds | None = None

    @property
    def is_flexible(self) -> bool:
        """Whether more than one size is allowed."""
        return bool(self.sizes) or self.width_bounds is not None

    def allows(self, width: int, height: int) -> bool:
        """Whether an image of this size may be given."""
        if self.sizes:
            return (width, height) in self.sizes
        if self.width_bounds is not None and self.height_bounds is not None:
            return width in self.width_bounds and height in self.height_bounds
        return (width, height) == (self.width, self.height)

    def limits(self) -> str:
        """The allowed sizes, for messages."""
        if self.sizes:
            return "one of " + ", ".join(f"{width}x{height}" for width, height in self.sizes)
        if self.width_bounds is not None:
            return f"({self.width_bounds})x({self.height_bounds})"
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class ScalarFeature:
    """A number or a string: int64, fp64 or string."""

    dtype: DType


@dataclass(frozen=True, slots=True)
class DictionaryFeature:
    """Probabilities (fp64) by class label (int64 or string)."""

    key: DType


@dataclass(frozen=True, slots=True)
class SequenceFeature:
    """A list of int64 or strings, and the lengths it may have."""

    dtype: DType
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class StateFeature:
    """A buffer that keeps its content between calls."""

    array: ArrayFeature


FeatureType: TypeAlias = (
    ArrayFeature | ImageFeature | ScalarFeature | DictionaryFeature | SequenceFeature | StateFeature
)


@dataclass(frozen=True, slots=True)
class Feature:
    """An input, output or state, named as in the program."""

    name: str
    type: FeatureType
    is_optional: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class FunctionDescription:
    """A function's interface.

    Attributes:
        predicted_feature: a classifier's output with the label; empty if the model is not a classifier.
        predicted_probabilities: a classifier's output with the dictionary of probabilities; may be empty.
    """

    name: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...] = ()
    predicted_feature: str = ""
    predicted_probabilities: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """A model's interface.

    Attributes:
        functions: by name.
        default_function: the function that runs when none is named.
        metadata: author, license, version, short description, and what the author defined; those that are given.
    """

    functions: Mapping[str, FunctionDescription]
    default_function: str
    metadata: Mapping[str, str]


def read_description(proto: Any, file: str) -> Description:
    """Read a specification's ModelDescription.

    Args:
        proto: `Model_pb2.ModelDescription`.
        file: what errors call the file.

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
    # A program may return one value as two outputs. Both have its name, so that a caller sees one output.
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


_KINDS = ("input", "output", "state")


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


_ARRAY_DTYPES = {
    65568: DType.FP32,
    65600: DType.FP64,
    65552: DType.FP16,
    131104: DType.INT32,
    131080: DType.INT8,
}


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
            # The default shape is allowed, whether it is listed or not.
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
