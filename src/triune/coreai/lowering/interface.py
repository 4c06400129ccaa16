"""The inputs, outputs and states of a function, derived from those of a graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.tensors import format_shape
from triune.coreai.library import dialect, ir
from triune.coreai.lowering.image_options import ImageOptions
from triune.coreai.lowering.images import image_type
from triune.coreai.lowering.options import LowerOptions
from triune.coreai.lowering.values import tensor_type
from triune.graph.conversion.interface import empty_input, passed_type
from triune.graph.conversion.shapes import InputShape, inputs_of, is_left_out, listed
from triune.graph.conversion.states import next_values

_DTYPES: Mapping[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.INT32: np.int32,
    TensorProto.BOOL: np.bool_,
}


@dataclass(frozen=True, slots=True)
class Feature:
    """An input, output or state.

    Attributes:
        name: its name in the graph and in the function; Core AI accepts any name.
        dtype: its numpy dtype.
        shape: its sizes; None for a dimension that is free in the program.
        given: the shape that the user gave for an input, by `--shape` for example; None if the user gave none.
        next: for a state, the name of the graph's output that is its next value; else empty.
        image: how it is converted from or to an image; None if it is not an image.
    """

    name: str
    dtype: Any
    shape: tuple[int | None, ...] = ()
    given: InputShape | None = None
    next: str = ""
    image: ImageOptions | None = None

    def type(self) -> Any:
        """Core AI's type for the function's argument or result."""
        image = None if self.image is None else self.image.image(self.shape)
        if image is not None:
            return image_type(image)
        tensor = tensor_type(self.shape, self.dtype)
        return dialect.HandleType.get(tensor) if self.next else tensor


@dataclass(frozen=True, slots=True)
class Interface:
    """All inputs and outputs of a function, in the graph's order; states are among the inputs."""

    inputs: Sequence[Feature]
    outputs: Sequence[Feature]

    @property
    def states(self) -> Sequence[Feature]:
        """The inputs that are states."""
        return [feature for feature in self.inputs if feature.next]


def interface_of(model: ModelProto, options: LowerOptions) -> Interface:
    """The interface of a function of a normalized and narrowed model.

    Raises:
        InvalidArgumentError: a state names no input or output of the model, or their shapes differ; an image names
            no input or output, or one without the type and shape of an image.
        UnsupportedError: Core AI lacks the type of an input, or the rank of an input is not known.
    """
    graph = model.graph
    nexts = next_values(graph, options.states)
    inputs = [_input(value, options) for value in inputs_of(graph) if not is_left_out(value, graph)]
    outputs = [_output(value, options) for value in graph.output if value.name not in nexts]
    _check_images(inputs, outputs, options)
    return Interface(inputs, outputs)


def _dims(value: ValueInfoProto) -> Any:
    return value.type.tensor_type.shape.dim


def _dtype(value: ValueInfoProto, role: str) -> Any:
    return _DTYPES[passed_type(value, role, _DTYPES, "Core AI")]


def _input(value: ValueInfoProto, options: LowerOptions) -> Feature:
    dtype = _dtype(value, "input")
    if not value.type.tensor_type.HasField("shape"):
        raise UnsupportedError(f"not even the rank of input '{value.name}' is known; give its shape with --shape")
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in _dims(value))
    if 0 in shape:
        raise empty_input(value.name, "Core AI")
    image = options.images.get(value.name)
    # For an image, ignore the shape that the user gave: the program's shape is that of the image's bytes.
    given = None if image is not None else options.shapes.get(value.name)
    return Feature(value.name, dtype, shape, given, options.states.get(value.name, ""), image)


def _output(value: ValueInfoProto, options: LowerOptions) -> Feature:
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in _dims(value))
    return Feature(value.name, _dtype(value, "output"), shape, image=options.images.get(value.name))


def _check_images(inputs: Sequence[Feature], outputs: Sequence[Feature], options: LowerOptions) -> None:
    for name in options.images:
        if name not in [feature.name for feature in (*inputs, *outputs)]:
            known = listed([feature.name for feature in (*inputs, *outputs)])
            raise InvalidArgumentError(f"there is no '{name}' to be an image; inputs and outputs are {known}")
    for feature in (*inputs, *outputs):
        if feature.image is None:
            continue
        is_picture = np.dtype(feature.dtype).kind == "f" and feature.image.image(feature.shape) is not None
        if not is_picture or feature.next:
            shape = format_shape([-1 if size is None else size for size in feature.shape])
            raise InvalidArgumentError(
                f"'{feature.name}' is to be an image, and is {'a state, ' if feature.next else ''}"
                f"{np.dtype(feature.dtype)} of {shape}; an image is made floats of [1,3,height,width]: "
                "fix the sizes with --shape"
            )
    for feature in outputs:
        if feature.image is not None and feature.image.changes:
            raise InvalidArgumentError(
                f"output '{feature.name}' is to be an image, with a scale or bias; these are for inputs: leave them out"
            )


def argument_attributes(names: Sequence[str]) -> Any:
    """The attributes that name the arguments or results of a function."""
    return ir.ArrayAttr.get([ir.DictAttr.get({"coreai.name": ir.StringAttr.get(name)}) for name in names])
