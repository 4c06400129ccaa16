"""A builder of nodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

Attribute = int | float | str | Sequence[int] | Sequence[float] | TensorProto | GraphProto


class Builder:
    """Nodes in the order in which they were asked for, under names that start with `prefix`."""

    def __init__(self, prefix: str) -> None:
        """`prefix` is unique in the model: the names made here never meet another's."""
        self.nodes: list[NodeProto] = []
        self._prefix = prefix
        self._count = 0

    def op(self, op_type: str, /, *inputs: str, **attributes: Attribute) -> str:
        """A node of one output; its name is returned."""
        return self.ops(op_type, 1, *inputs, **attributes)[0]

    def ops(self, op_type: str, count: int, /, *inputs: str, **attributes: Attribute) -> list[str]:
        """A node of `count` outputs, whose names are returned."""
        outputs = [self.name() for _ in range(count)]
        self.put(op_type, inputs, outputs, **attributes)
        return outputs

    def put(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """A node whose outputs have their names already."""
        name = f"{self._prefix}/{len(self.nodes)}/{op_type}"
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=name, **attributes))

    def constant(self, value: ArrayLike, dtype: DTypeLike | None = None) -> str:
        """A constant of numpy's dtype of `value`, or of `dtype`."""
        name = self.name()
        tensor = numpy_helper.from_array(np.asarray(value, dtype), name)
        self.put("Constant", [], [name], value=tensor)
        return name

    def typed(self, value: ArrayLike, elem_type: int) -> str:
        """A constant of a TensorProto.DataType."""
        return self.constant(value, helper.tensor_dtype_to_np_dtype(elem_type))

    def ints(self, *values: int) -> str:
        """A constant INT64 vector: axes, sizes, shapes."""
        return self.constant(values, np.int64)

    def cast(self, name: str, elem_type: int) -> str:
        """`name` as another element type."""
        return self.op("Cast", name, to=elem_type)

    def name(self) -> str:
        """A name that nobody has."""
        self._count += 1
        return f"{self._prefix}/{self._count}"
