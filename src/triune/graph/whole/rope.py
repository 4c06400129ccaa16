"""Rotary position embeddings, kept whole."""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto

from triune.graph.ane.index import Index
from triune.graph.axes import positive
from triune.graph.builder import Builder
from triune.graph.values import attributes_of
from triune.graph.whole.outline import RESULT, Outline

# Su et al., "RoFormer" (2021), with the halves of a head turned against each other, as LLaMA has it.

_UNARY = ("Cos", "Sin", "Unsqueeze", "Squeeze", "Cast", "Identity")


def find_ropes(index: Index) -> Iterator[Outline]:
    """Given x * cos + rotated(x) * sin, where rotated(x) is the negated second half of the last axis before the first
    one, and the halves of the tables are the same. Result: `rope` of half the tables.
    """
    for node in index.graph.node:
        if node.op_type == "Add":
            found = _of(index, node)
            if found is not None:
                yield found


def _of(index: Index, end: NodeProto) -> Outline | None:
    products = [index.maker(name, "Mul") for name in end.input]
    for straight, turned in (products, products[::-1]):
        if straight is None or turned is None:
            continue
        for place in (0, 1):
            x = _rotated(index, turned.input[place])
            if x is None or x not in straight.input:
                continue
            sin = turned.input[1 - place]
            cos = straight.input[1 - list(straight.input).index(x)]
            dims = index.dims(x)
            width = dims[-1] if dims else None
            if not isinstance(width, int) or not all(_has_same_halves(index, each, width) for each in (cos, sin)):
                continue
            return _outline(index, end, x, cos, sin, width)
    return None


def _outline(index: Index, end: NodeProto, x: str, cos: str, sin: str, width: int) -> Outline:
    half = width // 2
    halves = {
        name: index.build.op("Slice", table, *(index.build.constant([each], np.int64) for each in (0, half, -1, 1)))
        for name, table in (("cos", cos), ("sin", sin))
    }
    body = Builder("body")
    first = body.op("Slice", "input", body.ints(0), body.ints(half), body.ints(-1), body.ints(1))
    second = body.op("Slice", "input", body.ints(half), body.ints(width), body.ints(-1), body.ints(1))
    left = body.op("Sub", body.op("Mul", first, "cos"), body.op("Mul", second, "sin"))
    right = body.op("Add", body.op("Mul", first, "sin"), body.op("Mul", second, "cos"))
    body.put("Concat", [left, right], [RESULT], axis=-1)
    return Outline("rope", end, {"input": x, **halves}, body.nodes, {"scale": 1.0, "base": 1e4, "interleaved": 0})


def _rotated(index: Index, name: str) -> str | None:
    """What `name` is the rotation of."""
    joined = index.maker(name, "Concat")
    rank = index.rank(name)
    if joined is None or rank is None or rank < 3 or len(joined.input) != 2:
        return None
    if positive(int(attributes_of(joined)["axis"]), rank) != rank - 1:
        return None
    negated = index.maker(joined.input[0], "Neg")
    if negated is None:
        return None
    second, first = _part(index, negated.input[0]), _part(index, joined.input[1])
    if first is None or second is None or first[0] != second[0]:
        return None
    dims = index.dims(first[0])
    width = dims[-1] if dims else None
    if not isinstance(width, int) or width % 2:
        return None
    return first[0] if (first[1], second[1]) == (0, width // 2) else None


def _part(index: Index, name: str) -> tuple[str, int] | None:
    """What `name` is half of, along the last axis, and where it starts."""
    node = index.maker(name, "Slice", "Split")
    rank = index.rank(name)
    if node is None or rank is None:
        return None
    if node.op_type == "Split":
        if len(node.output) != 2 or positive(int(attributes_of(node).get("axis", 0)), rank) != rank - 1:
            return None
        first, second = (index.dims(each) for each in node.output)
        if first is None or second is None or first[-1] != second[-1] or not isinstance(first[-1], int):
            return None
        return node.input[0], 0 if name == node.output[0] else first[-1]
    starts, axes = index.ints(node, 1), index.ints(node, 3)
    steps = index.ints(node, 4) if len(node.input) > 4 and node.input[4] else [1]
    dims, result = index.dims(node.input[0]), index.dims(name)
    if starts is None or axes is None or len(starts) != 1 or steps != [1] or positive(axes[0], rank) != rank - 1:
        return None
    if dims is None or result is None or not isinstance(dims[-1], int) or result[-1] != dims[-1] // 2:
        return None
    return node.input[0], starts[0] + dims[-1] if starts[0] < 0 else starts[0]


def _has_same_halves(index: Index, name: str, width: int) -> bool:
    """Is the second half of the last axis the first once more?"""
    array = index.constant(name)
    if array is not None:
        half = width // 2
        return array.shape[-1:] == (width,) and bool((array[..., :half] == array[..., half:]).all())
    node = index.maker(name)
    if node is None:
        return False
    if node.op_type == "Concat":
        rank = index.rank(name)
        is_last = rank is not None and positive(int(attributes_of(node)["axis"]), rank) == rank - 1
        return is_last and len(node.input) == 2 and node.input[0] == node.input[1]
    if node.op_type == "Mul":
        factors = [place for place in (0, 1) if index.scalar(node.input[place]) is not None]
        return bool(factors) and _has_same_halves(index, node.input[1 - factors[0]], width)
    if node.op_type in ("Unsqueeze", "Squeeze"):
        # The last axis stays the last.
        dims = index.dims(name)
        return dims is not None and dims[-1] == width and _has_same_halves(index, node.input[0], width)
    if node.op_type == "Slice":
        axes = index.ints(node, 3)
        rank = index.rank(name) or 0
        is_whole = axes is not None and all(positive(each, rank) != rank - 1 for each in axes)
        return is_whole and _has_same_halves(index, node.input[0], width)
    if node.op_type == "Gather":
        # Rows of a table.
        return not int(attributes_of(node).get("axis", 0)) and _has_same_halves(index, node.input[0], width)
    return node.op_type in _UNARY and _has_same_halves(index, node.input[0], width)
