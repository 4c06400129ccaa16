"""What a user may say about a conversion."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from numpy.typing import NDArray
from onnx import ModelProto, helper

from triune.core.errors import InvalidArgumentError


class Precision(Enum):
    """The precision in which the program computes."""

    FP32 = "fp32"
    FP16 = "fp16"
    MIXED = "mixed"


class Layout(Enum):
    """How the program's activations lie in memory."""

    SOURCE = "source"
    ANE = "ane"


class Target(Enum):
    """The oldest system that shall run the package. The value is Core ML's specification version."""

    IOS15 = 6
    IOS16 = 7
    IOS17 = 8
    IOS18 = 9

    @property
    def label(self) -> str:
        """As Apple writes it: iOS18."""
        return self.name.replace("IOS", "iOS")

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Raises InvalidArgumentError for a name that is none."""
        for target in cls:
            if target.label.lower() == text.lower():
                return target
        known = ", ".join(each.label for each in cls)
        raise InvalidArgumentError(f"deployment target '{text}' is not known; choose one of {known}")


@dataclass(frozen=True, slots=True)
class Range:
    """A dimension between two sizes, both included."""

    low: int
    high: int


Dim: TypeAlias = int | Range


@dataclass(frozen=True, slots=True)
class InputShape:
    """The shape of an input.

    Attributes:
        choices: one shape, in which dimensions may be ranges; or several fixed shapes of one rank.
    """

    choices: tuple[tuple[Dim, ...], ...]

    @property
    def is_enumerated(self) -> bool:
        """Is it one of several shapes?"""
        return len(self.choices) > 1


@dataclass(frozen=True, slots=True)
class LowerOptions:
    """How to convert.

    Attributes:
        precision: fp32 keeps what the model says; fp16 computes floats in fp16; mixed is fp16 but for `keep_fp32`.
        keep_fp32: names of nodes or operators ("Softmax") that compute in fp32 where the precision is mixed.
        target: the oldest system that shall run it.
        shapes: by input. Inputs of fixed shape need none.
        constants: values for inputs that are to be no inputs of the package: what decides shapes or branches.
        layout: as the source has it, or transformers as the Neural Engine likes them (`triune.graph.ane`).
    """

    precision: Precision = Precision.FP32
    keep_fp32: frozenset[str] = frozenset()
    target: Target = Target.IOS18
    shapes: Mapping[str, InputShape] = field(default_factory=dict[str, InputShape])
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    layout: Layout = Layout.SOURCE

    def __post_init__(self) -> None:
        if self.keep_fp32 and self.precision is not Precision.MIXED:
            raise InvalidArgumentError("nodes kept in fp32 need precision 'mixed'; give --precision mixed")
        if self.precision is Precision.MIXED and not self.keep_fp32:
            raise InvalidArgumentError("precision 'mixed' needs nodes to keep in fp32; give --keep-fp32 NODE_OR_OP")


_DIM = re.compile(r"(\d+)(?:\.\.(\d+))?")


def parse_shape(text: str) -> tuple[str, InputShape]:
    """`input=1,1..512` or, one of several shapes, `input=1,128|1,512`: the input's name and its shape.

    Raises:
        InvalidArgumentError: it is not of that form, or a size is 0 or a range ends before it begins.
    """
    name, separator, body = text.rpartition("=")
    if not separator or not name:
        raise InvalidArgumentError(f"--shape {text!r} is not of the form input=1,1..512 or input=1,128|1,512")
    choices = tuple(_shape(each, text) for each in body.split("|"))
    if len(choices) > 1:
        if any(isinstance(dim, Range) for choice in choices for dim in choice):
            raise InvalidArgumentError(f"--shape {text!r} mixes ranges and several shapes; use one or the other")
        if len({len(choice) for choice in choices}) > 1:
            raise InvalidArgumentError(f"--shape {text!r} has shapes of different ranks; give shapes of one rank")
    return name, InputShape(choices)


def parse_shapes(texts: Sequence[str]) -> dict[str, InputShape]:
    """As `parse_shape`, for each; an input given twice is an InvalidArgumentError."""
    shapes: dict[str, InputShape] = {}
    for text in texts:
        name, shape = parse_shape(text)
        if name in shapes:
            raise InvalidArgumentError(f"--shape of '{name}' is given twice; separate several shapes by '|'")
        shapes[name] = shape
    return shapes


def _shape(text: str, whole: str) -> tuple[Dim, ...]:
    return tuple(_dim(each.strip(), whole) for each in text.split(",")) if text.strip() else ()


def _dim(text: str, whole: str) -> Dim:
    match = _DIM.fullmatch(text)
    if match is None:
        raise InvalidArgumentError(f"dimension {text!r} of --shape {whole!r} is no size (8) and no range (1..512)")
    low, high = int(match[1]), int(match[2] or match[1])
    if low < 1 or high < low:
        raise InvalidArgumentError(f"dimension {text!r} of --shape {whole!r} is empty; sizes begin at 1")
    return low if low == high else Range(low, high)


def typed_constants(model: ModelProto, constants: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Constants in the types of the inputs that they are given for. One number does for any shape of one element.

    Raises:
        InvalidArgumentError: there is no such input, or it is of another rank.
    """
    inputs = {value.name: value.type.tensor_type for value in model.graph.input}
    typed: dict[str, NDArray[Any]] = {}
    for name, array in constants.items():
        if name not in inputs:
            known = ", ".join(f"'{each}'" for each in inputs)
            raise InvalidArgumentError(f"there is no input '{name}'; the inputs are {known}")
        tensor = inputs[name]
        given = array.reshape([1] * len(tensor.shape.dim)) if array.size == 1 and tensor.HasField("shape") else array
        if tensor.HasField("shape") and len(tensor.shape.dim) != given.ndim:
            raise InvalidArgumentError(
                f"the constant for input '{name}' is of rank {given.ndim}, the model's of {len(tensor.shape.dim)}"
            )
        typed[name] = given.astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return typed
