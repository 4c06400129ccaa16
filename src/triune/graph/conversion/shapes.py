"""The shapes that a user gives for a model's inputs with --shape."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from triune.core.errors import InvalidArgumentError
from triune.graph.values import subgraphs_of


@dataclass(frozen=True, slots=True)
class Range:
    """The sizes from `low` to `high`, both included, of a free dimension."""

    low: int
    high: int


Dim: TypeAlias = int | Range


@dataclass(frozen=True, slots=True)
class InputShape:
    """The shape of an input.

    Attributes:
        choices: one shape, whose dimensions may be ranges, or several fixed shapes of equal rank.
    """

    choices: tuple[tuple[Dim, ...], ...]

    @property
    def is_enumerated(self) -> bool:
        """Whether there are several fixed shapes."""
        return len(self.choices) > 1

    @property
    def is_fixed(self) -> bool:
        """Whether there is one shape, without ranges."""
        return len(self.choices) == 1 and all(isinstance(dim, int) for dim in self.choices[0])


_LARGEST = 2**31 - 1

_DIM = re.compile(r"(\d+)(?:\.\.(\d+))?")


def parse_shape(text: str) -> tuple[str, InputShape]:
    """Parse `input=1,1..512` (ranges) or `input=1,128|1,512` (several shapes) into the input's name and shape.

    Raises:
        InvalidArgumentError: the text has another form, a size is 0 or beyond int32, or a range ends before it begins.
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
    """Parse several texts with `parse_shape`. Raises InvalidArgumentError if an input occurs twice."""
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
        raise InvalidArgumentError(
            f"dimension {text!r} of --shape {whole!r} is neither a size (8) nor a range (1..512)"
        )
    low, high = int(match[1]), int(match[2] or match[1])
    if low < 1 or high < low:
        raise InvalidArgumentError(f"dimension {text!r} of --shape {whole!r} is empty; sizes begin at 1")
    if high > _LARGEST:
        raise InvalidArgumentError(
            f"dimension {text!r} of --shape {whole!r} is beyond {_LARGEST}, the largest size: Apple's runtimes count "
            "in int32; give a smaller one"
        )
    return low if low == high else Range(low, high)


def apply_shapes(model: ModelProto, shapes: Mapping[str, InputShape]) -> None:
    """Write the fixed sizes of `shapes` into the model's inputs, so that values that depend on them can be folded.

    Raises:
        InvalidArgumentError: there is no such input, or a shape contradicts the model.
    """
    inputs = {value.name: value for value in inputs_of(model.graph)}
    for name, shape in shapes.items():
        if name not in inputs:
            raise InvalidArgumentError(f"there is no input '{name}'; the inputs are {listed(inputs)}")
        _apply(inputs[name], shape)


def inputs_of(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs that a caller must give: those without a default."""
    defaults = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in defaults]


def is_left_out(value: ValueInfoProto, graph: GraphProto) -> bool:
    """Whether an input is left out of the program: no node reads it, and it has a dimension of size 0, which programs
    do not allow.
    """
    is_empty = any(dim.HasField("dim_value") and dim.dim_value == 0 for dim in value.type.tensor_type.shape.dim)
    return is_empty and not _is_read(graph, value.name)


def _is_read(graph: GraphProto, name: str) -> bool:
    if any(value.name == name for value in graph.output):
        return True
    return any(name in node.input or any(_is_read(inner, name) for inner in subgraphs_of(node)) for node in graph.node)


def listed(names: Iterable[str]) -> str:
    """The names in quotation marks, separated by commas, for a message."""
    return ", ".join(f"'{name}'" for name in names)


def _apply(value: ValueInfoProto, shape: InputShape) -> None:
    tensor = value.type.tensor_type
    rank = len(shape.choices[0])
    if tensor.HasField("shape") and len(tensor.shape.dim) != rank:
        raise InvalidArgumentError(
            f"the shape given for input '{value.name}' has rank {rank}, the input has rank {len(tensor.shape.dim)}"
        )
    while len(tensor.shape.dim) < rank:
        tensor.shape.dim.add()
    for axis, dim in enumerate(tensor.shape.dim):
        sizes = {choice[axis] for choice in shape.choices}
        # A size of 0 counts as free: some exporters write 0 for a free size.
        if dim.dim_value:
            if sizes != {dim.dim_value}:
                raise InvalidArgumentError(
                    f"dimension {axis} of input '{value.name}' is {dim.dim_value} in the model; "
                    "--shape cannot change it"
                )
        elif len(sizes) == 1 and isinstance(size := next(iter(sizes)), int):
            dim.dim_value = size


def kind_of(value: ValueInfoProto) -> str:
    """The type of an input or output, for messages: "STRING", "a sequence"."""
    words = {"sequence_type": "a sequence", "optional_type": "an optional value", "map_type": "a dictionary"}
    kind = value.type.WhichOneof("value")
    if kind == "tensor_type":
        return TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    return words.get(kind or "", "no tensor")
