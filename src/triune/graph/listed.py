"""Vectors that ONNX's shape inference writes out, element by element, since they might be shapes."""

import math
from collections.abc import Iterable
from typing import Any

from onnx import GraphProto, NodeProto, TensorProto

from triune.graph.values import Values, subgraphs_of

MOST_LISTED = 1 << 24
"""Elements of one vector. Inference takes 140 bytes and 0.3 µs for each (onnx 1.23), and looks at no limit itself."""

_LISTED = (0, TensorProto.INT32, TensorProto.INT64)
"""The types of computed values that may be parts of shapes; 0 where it is not known."""

_MAKERS = ("Expand", "ConstantOfShape", "Tile", "Range")


def too_long(graph: GraphProto, outer: Values | None = None) -> Iterable[str]:
    """What is wrong with each node that makes a vector of more than MOST_LISTED elements of constants."""
    values: Values | None = None
    for node in graph.node:
        if node.op_type in _MAKERS and node.domain in ("", "ai.onnx"):
            values = values or Values(graph, outer)
            length = _length(node, values)
            if length > MOST_LISTED:
                name = node.name or next(filter(None, node.output), "")
                yield (
                    f"{node.op_type} '{name}' makes a vector of {length} elements, and one that a model makes has at "
                    f"most {MOST_LISTED}; give it as an input, or make it of two dimensions"
                )
        for inner in subgraphs_of(node):
            values = values or Values(graph, outer)
            yield from too_long(inner, values)


def _length(node: NodeProto, values: Values) -> int:
    """How many elements the vector has; 0 where the node makes another, or it is not known."""
    operands: list[Any] = [values.constant(name) for name in node.input]
    if node.op_type == "Range":
        if len(operands) != 3 or any(each is None or each.size != 1 or each.dtype.kind != "i" for each in operands):
            return 0
        start, limit, step = (each.reshape(-1)[0].item() for each in operands)
        return max(-((start - limit) // step), 0) if step else 0
    place = 0 if node.op_type == "ConstantOfShape" else 1
    sizes = operands[place] if place < len(operands) else None
    if sizes is None or sizes.size != 1 or sizes.dtype.kind != "i":
        return 0
    size = int(sizes.reshape(-1)[0])
    if place == 1 and operands[0] is None and values.elem_type(node.input[0]) not in _LISTED:
        return 0
    given = values.static_shape(node.input[0])
    return size * math.prod(given or (1,)) if node.op_type == "Tile" else size
