"""A Softmax or a Transpose of a value that was made flatter only for it."""

from collections.abc import Callable
from typing import Any, TypeAlias

from onnx import ModelProto, NodeProto

from triune.graph.ane.index import Index, label, perm_of, same_sizes
from triune.graph.ane.step import Step
from triune.graph.axes import positive
from triune.graph.values import attributes_of


class WholeOperands(Step):
    """Given Reshape to rows, an operator, Reshape back. Result: the operator alone.

    - Softmax over the last axis. Before operator set 13 a Softmax flattened its operand, and this is what remains of it
      in models of that time.
    - Transpose [0, 2, 1] of (a * b, S, width), which was (a, b, S, width): Transpose [0, 1, 3, 2]. So torch's newer
      exporter turns the keys of an attention.
    """

    name = "whole_operands"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`."""
        index = self._index(model.graph)
        nodes: list[NodeProto] = []
        for last in model.graph.node:
            node = index.maker(last.input[0], *_PATTERNS) if last.op_type == "Reshape" else None
            first = index.maker(node.input[0], "Reshape") if node is not None else None
            if node is None or first is None or not _PATTERNS[node.op_type][0](index, first, node, last):
                nodes.append(last)
                continue
            index.build.put(node.op_type, [first.input[0]], [last.output[0]], **_PATTERNS[node.op_type][1])
            nodes += index.take()
            self._report.change(self.name, label(last), f"{node.op_type} without its Reshapes")
        index.replace(nodes)
        return model


_Pattern: TypeAlias = Callable[[Index, NodeProto, NodeProto, NodeProto], bool]
"""Of the Reshape, the operator and the Reshape back: is the operator alone the same?"""


def _is_softmax_of_rows(index: Index, first: NodeProto, softmax: NodeProto, last: NodeProto) -> bool:
    name = first.input[0]
    source, rows = index.dims(name), index.dims(softmax.output[0])
    if not source or not rows or rows[-1] is None or source[-1] != rows[-1]:
        return False
    axis = positive(int(attributes_of(softmax).get("axis", -1)), len(rows))
    is_back = _is_shape_of(index, last.input[1], name) or same_sizes(source, index.dims(last.output[0]))
    return axis == len(rows) - 1 and is_back


def _is_shape_of(index: Index, shape: str, name: str) -> bool:
    node = index.maker(shape, "Shape")
    return node is not None and node.input[0] == name and not node.attribute


def _is_turn_of_rows(index: Index, first: NodeProto, turn: NodeProto, last: NodeProto) -> bool:
    """Does it turn the last two axes of (a, b, S, width)?"""
    if perm_of(turn, 3) != (0, 2, 1):
        return False
    dims, rows, result = (index.dims(name) for name in (first.input[0], first.output[0], last.output[0]))
    if dims is None or rows is None or result is None or len(dims) != 4 or len(rows) != 3 or len(result) != 4:
        return False
    is_merged = None not in dims[2:] and tuple(dims[2:]) == tuple(rows[1:])
    return is_merged and same_sizes(result, (dims[0], dims[1], dims[3], dims[2]))


_PATTERNS: dict[str, tuple[_Pattern, dict[str, Any]]] = {
    "Softmax": (_is_softmax_of_rows, {"axis": -1}),
    "Transpose": (_is_turn_of_rows, {"perm": [0, 1, 3, 2]}),
}
"""With the attributes of the operator alone."""
