"""Find nodes that create 1-D tensors too long for ONNX's shape inference.

Inference stores 1-D tensors element by element if they may become shapes: integers, and floats that certain operators
read.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto

from triune.graph.values import Values, subgraphs_of
from triune.graph.weight_files import array_of

MOST_LISTED = 1 << 24
"""The largest number of elements of a 1-D tensor that a node creates from constants.

Inference takes 140 bytes and 0.3 µs for each element (onnx 1.23), and has no limit of its own.
"""

_TYPES_OF_SHAPES = (0, TensorProto.INT32, TensorProto.INT64)
"""The types of values that may become shapes; 0 if the type is not known."""

_FOLLOWED = frozenset(["Add", "Cast", "Concat", "Gather", "Mul", "Size", "Slice", "Squeeze", "Sub", "Unsqueeze"])
"""Operators whose operands inference stores element by element, whatever their type."""

_MAKERS = ("Expand", "ConstantOfShape", "Tile", "Range")


def too_long(graph: GraphProto, outer: Values | None = None) -> Iterable[str]:
    """Yield a message for each node that creates, from constants, a 1-D tensor of more than MOST_LISTED elements."""
    values: Values | None = None
    for node in graph.node:
        if node.op_type in _MAKERS and node.domain in ("", "ai.onnx"):
            values = values or Values(graph, outer)
            length, may_be_integer = _length(node, values)
            if length > MOST_LISTED and (may_be_integer or _is_followed(graph, node.output[0])):
                name = node.name or next(filter(None, node.output), "")
                yield (
                    f"{node.op_type} '{name}' makes a vector of {length} elements, and one that a model makes has at "
                    f"most {MOST_LISTED}; give it as an input"
                )
        for inner in subgraphs_of(node):
            values = values or Values(graph, outer)
            yield from too_long(inner, values)


def _is_followed(graph: GraphProto, name: str) -> bool:
    return any(
        (node.op_type in _FOLLOWED and name in node.input)
        or any(_is_followed(inner, name) for inner in subgraphs_of(node))
        for node in graph.node
    )


def _length(node: NodeProto, values: Values) -> tuple[int, bool]:
    """The number of elements of a node's result (0 if it is not known or not 1-D), and whether they may be integers."""
    if node.op_type == "Range":
        operands = [_scalar(values, name) for name in node.input]
        return _steps(operands), all(each is not None and each.dtype.kind == "i" for each in operands)
    position = 0 if node.op_type == "ConstantOfShape" else 1
    size = _scalar(values, node.input[position]) if position < len(node.input) else None
    if size is None or size.dtype.kind != "i":
        return 0, False
    is_constant = position == 0 or values.tensor(node.input[0]) is not None
    may_be_integer = is_constant or values.elem_type(node.input[0]) in _TYPES_OF_SHAPES
    given = values.static_shape(node.input[0])
    length = int(size.reshape(-1)[0])
    return length * math.prod(given or (1,)) if node.op_type == "Tile" else length, may_be_integer


def _scalar(values: Values, name: str) -> NDArray[Any] | None:
    """The value of a constant of one element; None for other values, and for a constant in another file, which
    inference cannot read either.
    """
    tensor = values.tensor(name)
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL or math.prod(tensor.dims) != 1:
        return None
    return array_of(tensor)


def _steps(operands: Sequence[Any]) -> int:
    """The number of elements of a Range with these operands; 0 if it is not known."""
    if len(operands) != 3 or any(each is None or each.dtype.kind not in "if" for each in operands):
        return 0
    start, limit, step = (each.reshape(-1)[0].item() for each in operands)
    if not step:
        return 0
    if isinstance(step, int):
        return max(-((start - limit) // step), 0)
    count = (limit - start) / step
    return max(math.ceil(count), 0) if math.isfinite(count) else 0
