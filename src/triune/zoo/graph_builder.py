"""A builder for ONNX graphs, with one call for each node."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

from triune.core.datatypes import Array

PRODUCER = "triune.zoo"


class GraphBuilder:
    """Collects nodes and weights, and builds a checked model. Values are referred to by name."""

    def __init__(self, name: str, *, opset: int, ir_version: int) -> None:
        self._name = name
        self._opset = opset
        self._ir_version = ir_version
        self._nodes: list[NodeProto] = []
        self._weights: dict[str, TensorProto] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        self._num_values = 0

    def input(self, name: str, datatype: int, shape: Sequence[int | str]) -> str:
        """Declare a graph input. `datatype` is a TensorProto.DataType; a string in `shape` is a dynamic dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, datatype, list(shape)))
        return name

    def output(self, name: str, datatype: int, shape: Sequence[int | str]) -> None:
        """Declare the value `name` as a graph output."""
        self._outputs.append(helper.make_tensor_value_info(name, datatype, list(shape)))

    def weight(self, name: str, array: Array) -> str:
        """Store `array` in the model under `name`, once."""
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        return name

    def ints(self, *values: int) -> str:
        """Add a constant INT64 vector."""
        return self.weight(f"ints_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """Add a constant FP32 scalar."""
        return self.weight(f"scalar_{value:.9g}", np.array(value, np.float32))

    def add(self, op: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        """Add a node with one output. Returns the output's name, which is `output` or a generated one."""
        self._num_values += 1
        result = output or f"{op.lower()}_{self._num_values}"
        given = cast("Mapping[str, Any]", attributes)
        self._nodes.append(helper.make_node(op, list(inputs), [result], name=result, **given))
        return result

    def build(self) -> bytes:
        """Build and serialize the model.

        Raises:
            onnx.checker.ValidationError: the graph is not valid ONNX, because of a bug in the code that built it.
        """
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, initializer=list(self._weights.values())
        )
        opset = helper.make_opsetid("", self._opset)
        model: ModelProto = helper.make_model(
            graph, opset_imports=[opset], ir_version=self._ir_version, producer_name=PRODUCER
        )
        content = model.SerializeToString(deterministic=True)
        check = cast("Callable[..., None]", checker.check_model)  # pyright: ignore[reportUnknownMemberType]
        check(content, full_check=True)
        return content
