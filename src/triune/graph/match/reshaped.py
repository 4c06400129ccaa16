"""Match an operator between two Reshapes that undo each other, so that it can be applied without them.

- Softmax over the last axis. Before operator set 13 Softmax flattened its operand to a matrix. `Upgrade`
  writes that as two Reshapes.
- Transpose. (a, b, S, width), reshaped to (a * b, S, width), transposed by [0, 2, 1] and reshaped to (a, b, width, S),
  is Transpose [0, 1, 3, 2] of the first value. PyTorch's newer exporter transposes the keys of attention in this way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import NodeProto

from triune.graph.axes import positive
from triune.graph.index import Index, perm_of, same_sizes
from triune.graph.values import attributes_of


@dataclass(frozen=True, slots=True)
class Reshaped:
    """Reshape(op(Reshape(x))) that equals op(x).

    Attributes:
        x: the operand.
        op_type: the operator, Softmax or Transpose.
        attributes: the attributes with which the operator computes the same directly from x.
        nodes: the first Reshape, the operator, and the last Reshape.
    """

    x: str
    op_type: str
    attributes: Mapping[str, int | list[int]]
    nodes: Sequence[NodeProto]


def match_reshaped(index: Index, last: NodeProto) -> Reshaped | None:
    """The pattern `Reshaped` that ends with the node `last`; None if `last` does not end one."""
    node = index.producer(last.input[0], "Softmax", "Transpose") if last.op_type == "Reshape" else None
    first = index.producer(node.input[0], "Reshape") if node is not None else None
    if node is None or first is None:
        return None
    x, nodes = first.input[0], (first, node, last)
    if node.op_type == "Softmax":
        return Reshaped(x, "Softmax", {"axis": -1}, nodes) if _is_softmax_of_rows(index, *nodes) else None
    perm = [0, 1, 3, 2]
    return Reshaped(x, "Transpose", {"perm": perm}, nodes) if _is_transpose_of_rows(index, *nodes) else None


def _is_softmax_of_rows(index: Index, first: NodeProto, softmax: NodeProto, last: NodeProto) -> bool:
    name = first.input[0]
    source, rows = index.dims(name), index.dims(softmax.output[0])
    if not source or not rows or rows[-1] is None or source[-1] != rows[-1]:
        return False
    axis = positive(int(attributes_of(softmax).get("axis", -1)), len(rows))
    is_back = _is_shape_of(index, last.input[1], name) or same_sizes(source, index.dims(last.output[0]))
    return axis == len(rows) - 1 and is_back


def _is_shape_of(index: Index, shape: str, name: str) -> bool:
    node = index.producer(shape, "Shape")
    return node is not None and node.input[0] == name and not node.attribute


def _is_transpose_of_rows(index: Index, first: NodeProto, transpose: NodeProto, last: NodeProto) -> bool:
    """Whether the Transpose swaps the last two axes of (a, b, S, width), reshaped to (a * b, S, width)."""
    if perm_of(transpose, 3) != (0, 2, 1):
        return False
    dims, rows, result = (index.dims(name) for name in (first.input[0], first.output[0], last.output[0]))
    if dims is None or rows is None or result is None or len(dims) != 4 or len(rows) != 3 or len(result) != 4:
        return False
    is_merged = None not in dims[2:] and tuple(dims[2:]) == tuple(rows[1:])
    return is_merged and same_sizes(result, (dims[0], dims[1], dims[3], dims[2]))
