"""Builds a graph node by node, in which the type and shape of every value are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx.shape_inference
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

OPSET = 21
MAX_ELEMENTS = 20_000

FLOATS = (TensorProto.FLOAT,)
INTEGERS = (TensorProto.INT32, TensorProto.INT64)


class NotPossible(Exception):
    """The operator cannot be added to the values of the graph. Another operator is drawn instead."""


@dataclass(frozen=True)
class Value:
    """A value of the graph: its name, element type of ONNX, and sizes."""

    name: str
    elem_type: int
    shape: tuple[int, ...]

    @property
    def is_float(self) -> bool:
        return self.elem_type in FLOATS

    @property
    def is_integer(self) -> bool:
        return self.elem_type in INTEGERS


class Growing:
    """A graph under construction.

    Attributes:
        rng: the random generator for all choices.
        values: the values that nodes can read, in order, the inputs first.
    """

    def __init__(self, seed: Sequence[int]) -> None:
        self.rng = np.random.default_rng(seed)
        self.values: list[Value] = []
        self.nodes: list[NodeProto] = []
        self._inputs: list[Value] = []
        self._constants: dict[str, Any] = {}

    def input(self, elem_type: int, shape: Sequence[int]) -> Value:
        value = Value(f"x{len(self._inputs)}", elem_type, tuple(shape))
        self._inputs.append(value)
        self.values.append(value)
        return value

    def constant(self, array: Any) -> Value:
        array = np.asarray(array)
        name = f"c{len(self._constants)}"
        self._constants[name] = array
        return Value(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    def add(self, op_type: str, *inputs: Value | None, outputs: int = 1, **attributes: Any) -> list[Value]:
        """Append a node. Raises NotPossible if ONNX does not accept it, or if its result is empty or too large."""
        names = [f"v{len(self.values) + index}" for index in range(outputs)]
        node = helper.make_node(op_type, [each.name if each else "" for each in inputs], names, **attributes)
        infos = [helper.make_tensor_value_info(each.name, each.elem_type, each.shape) for each in inputs if each]
        held = [numpy_helper.from_array(self._constants[each.name], each.name) for each in inputs if self._holds(each)]
        outs = [helper.make_empty_tensor_value_info(name) for name in names]
        model = _model([node], list({each.name: each for each in infos}.values()), outs, _unlike(held))
        try:
            inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError as error:
            raise NotPossible(str(error)) from error
        made = [_value_of(each) for each in inferred.graph.output]
        self.nodes.append(node)
        self.values += made
        return made

    def model(self, outputs: Sequence[Value]) -> ModelProto:
        """The finished model, which has these outputs."""
        infos = [
            [helper.make_tensor_value_info(each.name, each.elem_type, each.shape) for each in group]
            for group in (self._inputs, outputs)
        ]
        held = [numpy_helper.from_array(array, name) for name, array in self._constants.items()]
        return _model(self.nodes, infos[0], infos[1], held)

    def number(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def is_lucky(self, chance: float) -> bool:
        return bool(self.rng.random() < chance)

    def weights(self, *shape: int, scale: float = 1.0) -> Value:
        return self.constant((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def integers(self, *numbers: int) -> Value:
        return self.constant(np.array(numbers, np.int64))

    def _holds(self, value: Value | None) -> bool:
        return value is not None and value.name in self._constants


def _unlike(tensors: list[TensorProto]) -> list[TensorProto]:
    return list({each.name: each for each in tensors}.values())


def _model(nodes: Any, inputs: Any, outputs: Any, constants: Any) -> ModelProto:
    constant_names = {each.name for each in constants}
    graph = helper.make_graph(
        list(nodes), "g", [each for each in inputs if each.name not in constant_names], list(outputs), list(constants)
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _value_of(info: Any) -> Value:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape") or any(not dim.HasField("dim_value") for dim in tensor.shape.dim):
        raise NotPossible("a shape that is not known")
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    if len(shape) > 5 or min(shape, default=1) < 1 or np.prod(shape, dtype=np.int64) > MAX_ELEMENTS:
        raise NotPossible(f"shape {shape}")
    return Value(info.name, tensor.elem_type, shape)
