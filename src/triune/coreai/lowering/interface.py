"""The inputs, outputs and states of a function, made of those of a graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.library import dialect, ir
from triune.coreai.lowering.options import LowerOptions
from triune.coreai.lowering.values import tensor_type
from triune.graph.conversion.shapes import InputShape, inputs_of, is_left_out, listed

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
        name: in the graph and in the function; Core AI takes any.
        dtype: numpy's.
        shape: None for a dimension that is free in the program.
        given: of an input, what the user said of its shape.
        next: of a state, the graph's output that is its next value.
    """

    name: str
    dtype: Any
    shape: tuple[int | None, ...] = ()
    given: InputShape | None = None
    next: str = ""

    def type(self) -> Any:
        """The type of the function's argument."""
        tensor = tensor_type(self.shape, self.dtype)
        return dialect.HandleType.get(tensor) if self.next else tensor


@dataclass(frozen=True, slots=True)
class Interface:
    """All of a function's, in the graph's order; a state stands among the inputs."""

    inputs: Sequence[Feature]
    outputs: Sequence[Feature]

    @property
    def states(self) -> Sequence[Feature]:
        """The states alone."""
        return [feature for feature in self.inputs if feature.next]


def interface_of(model: ModelProto, options: LowerOptions) -> Interface:
    """The interface of a function of a normalized and narrowed model.

    Raises:
        InvalidArgumentError: a state names no input or output of the model, or their shapes differ.
        UnsupportedError: an input's type is none that Core AI can have, or not even its rank is known.
    """
    graph = model.graph
    _check_states(graph, options.states)
    inputs = [_input(value, options) for value in inputs_of(graph) if not is_left_out(value, graph)]
    nexts = set(options.states.values())
    outputs = [Feature(value.name, _dtype(value, "output")) for value in graph.output if value.name not in nexts]
    return Interface(inputs, outputs)


def _check_states(graph: GraphProto, states: Mapping[str, str]) -> None:
    inputs = {value.name: value for value in inputs_of(graph)}
    outputs = {value.name: value for value in graph.output}
    for name, following in states.items():
        if name not in inputs:
            raise InvalidArgumentError(f"there is no input '{name}' to be a state; the inputs are {listed(inputs)}")
        if following not in outputs:
            raise InvalidArgumentError(
                f"there is no output '{following}' to be the next value of state '{name}'; the outputs are "
                f"{listed(outputs)}"
            )
        before, after = (_static_shape(value) for value in (inputs[name], outputs[following]))
        if before is None or (after is not None and after != before):
            raise InvalidArgumentError(
                f"state '{name}' is {_told(inputs[name])}, its next value '{following}' {_told(outputs[following])}; "
                "a state has one fixed shape"
            )


def _static_shape(value: ValueInfoProto) -> tuple[int, ...] | None:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None


def _told(value: ValueInfoProto) -> str:
    dims = [str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in _dims(value)]
    return f"[{', '.join(dims)}]"


def _dims(value: ValueInfoProto) -> Any:
    return value.type.tensor_type.shape.dim


def _dtype(value: ValueInfoProto, role: str) -> Any:
    elem_type = value.type.tensor_type.elem_type
    if not value.type.HasField("tensor_type") or elem_type not in _DTYPES:
        kind = TensorProto.DataType.Name(elem_type) if value.type.HasField("tensor_type") else "no tensor"
        raise UnsupportedError(f"{role} '{value.name}' is {kind}; Core AI passes FLOAT, FLOAT16, INT32 and BOOL")
    return _DTYPES[elem_type]


def _input(value: ValueInfoProto, options: LowerOptions) -> Feature:
    dtype = _dtype(value, "input")
    if not value.type.tensor_type.HasField("shape"):
        raise UnsupportedError(f"not even the rank of input '{value.name}' is known; give its shape with --shape")
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in _dims(value))
    if 0 in shape:
        raise UnsupportedError(f"input '{value.name}' is empty, and Core AI has no empty tensors; remove it")
    return Feature(value.name, dtype, shape, options.shapes.get(value.name), options.states.get(value.name, ""))


def argument_attributes(names: Sequence[str]) -> Any:
    """The attributes that give a function's arguments or results their names."""
    return ir.ArrayAttr.get([ir.DictAttr.get({"coreai.name": ir.StringAttr.get(name)}) for name in names])
