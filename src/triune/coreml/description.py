"""The description of a Core ML model: its functions' inputs, outputs and states, with the limits of shapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from triune.coreml.mil import DType


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
        """The allowed shapes as text, for messages."""
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
        """The allowed sizes as text, for messages."""
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
    """The interface of a function: its inputs, outputs and states.

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
        functions: the interfaces of the functions, by name.
        default_function: the function that runs when none is named.
        metadata: author, license, version, short description, and entries that the author defined, as far as they are
            given.
    """

    functions: Mapping[str, FunctionDescription]
    default_function: str
    metadata: Mapping[str, str]
