"""Build ONNX nodes with unique names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

Attribute = int | float | str | Sequence[int] | Sequence[float] | TensorProto | GraphProto


class Builder:
    """Collects new nodes in the order in which they are built. All names begin with `prefix`."""

    def __init__(self, prefix: str) -> None:
        """`prefix` must be unique in the model (`Names.prefix`), so that new names clash with no others."""
        self.nodes: list[NodeProto] = []
        self._prefix = prefix
        self._count = 0

    def op(self, op_type: str, /, *inputs: str, **attributes: Attribute) -> str:
        """Build a node of one output; returns the output's name."""
        return self.ops(op_type, 1, *inputs, **attributes)[0]

    def ops(self, op_type: str, count: int, /, *inputs: str, **attributes: Attribute) -> list[str]:
        """Build a node of `count` outputs; returns their names."""
        outputs = [self.name() for _ in range(count)]
        self.put(op_type, inputs, outputs, **attributes)
        return outputs

    def put(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Build a node whose outputs get the given names."""
        name = f"{self._prefix}/{len(self.nodes)}/{op_type}"
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=name, **attributes))

    def constant(self, value: ArrayLike, dtype: DTypeLike | None = None) -> str:
        """Add a constant of element type `dtype` (by default numpy's type of `value`); returns its name."""
        name = self.name()
        tensor = numpy_helper.from_array(np.asarray(value, dtype), name)
        self.put("Constant", [], [name], value=tensor)
        return name

    def typed(self, value: ArrayLike, elem_type: int) -> str:
        """Add a constant of element type `elem_type`, a TensorProto.DataType; returns its name."""
        return self.constant(value, helper.tensor_dtype_to_np_dtype(elem_type))

    def ints(self, *values: int) -> str:
        """Add a constant INT64 vector, such as axes, sizes or a shape; returns its name."""
        return self.constant(values, np.int64)

    def cast(self, name: str, elem_type: int) -> str:
        """Build a Cast of `name` to another element type; returns the result's name."""
        return self.op("Cast", name, to=elem_type)

    def name(self) -> str:
        """A new name that no value or node has."""
        self._count += 1
        return f"{self._prefix}/{self._count}"
