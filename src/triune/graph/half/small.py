"""Small numbers that are read such that it counts how small they are: log(p), 1 / p, p > 0.

A Softmax gives 2e-9 of a score that is 20 below the largest, and fp16 has 0 there. To compute it in fp32 does not help
where its result is rounded before it is read: all that hands it on is to be in fp32 too.
"""

import math
from collections.abc import Sequence

from onnx import NodeProto, TensorProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.limits import SMALLEST_INVERTED, SMALLEST_NORMAL
from triune.graph.half.makers import DEEPEST, Makers
from triune.graph.half.operators import (
    COMPARISONS,
    DIVISIONS,
    GUARDS,
    KEEP_SMALL,
    PROBABILITIES,
    SMALL_PRODUCTS,
    ZERO_TESTS,
)
from triune.graph.values import attributes_of


def small_makers(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """What makes the small numbers that a node reads as such, with that node; or nothing."""
    names = _read_as_small(node, makers)
    found = [each for name in names for each in shares(name, makers)]
    is_of_given = node.op_type not in DIVISIONS and any(makers.is_given(name) for name in names)
    return [*found, node] if found or is_of_given else []


def is_of_small(node: NodeProto, makers: Makers) -> bool:
    """Does it divide by small numbers, so that its results may be beyond fp16?"""
    return bool(_divisor(node, makers)) and bool(small_makers(node, makers))


def guarded_makers(log: NodeProto, makers: Makers) -> list[NodeProto]:
    """What makes the small numbers that a logarithm in fp32 is of, through guards, whatever makes them."""
    names, found = [log.input[0]], list[NodeProto]()
    for _ in range(DEEPEST):
        node = makers.of(names.pop()) if names else None
        if node is not None and node.op_type in PROBABILITIES | SMALL_PRODUCTS | KEEP_SMALL:
            found.append(node)
            names += makers.floats(node) if node.op_type in GUARDS else []
    return found


def shares(name: str, makers: Makers) -> list[NodeProto]:
    """The nodes from shares and exponentials on to a value; none where none leads to it."""
    return makers.leading_to(
        name,
        lambda _, node: [node] if node.op_type in PROBABILITIES else [],
        lambda value, node: node.op_type in KEEP_SMALL and _is_bounded(makers.bounds.of(value)),
    )


def _read_as_small(node: NodeProto, makers: Makers) -> Sequence[str]:
    """The operands of which fp16 may leave nothing where something counts."""
    if not node.input or makers.values.elem_type(node.input[0]) != TensorProto.FLOAT:
        return []
    if node.op_type == "Log":
        return [node.input[0]] if makers.bounds.of(node.input[0])[0] < SMALLEST_NORMAL else []
    if node.op_type in COMPARISONS and node.input[0] != node.input[1]:
        limits = [name for name in node.input if makers.values.tensor(name) is not None]
        return node.input if all(magnitude(makers.bounds.of(name)) < SMALLEST_NORMAL for name in limits) else []
    is_truth = node.op_type == "Cast" and attributes_of(node).get("to") == TensorProto.BOOL
    return [node.input[0]] if is_truth or node.op_type in ZERO_TESTS else _divisor(node, makers)


def _divisor(node: NodeProto, makers: Makers) -> Sequence[str]:
    """What a node divides by that may be too small for fp16 to divide by; nothing of another."""
    match node.op_type:
        case "Reciprocal":
            names = [node.input[0]]
        case "Div":
            names = [node.input[1]]
        case "Pow":
            exponent = makers.values.constant(node.input[1])
            names = [node.input[0]] if exponent is None or (exponent < 0).any() else []
        case _:
            names = []
    return [name for name in names if _may_be_small(makers.bounds.of(name))]


def _may_be_small(interval: tuple[float, float]) -> bool:
    return interval[0] < SMALLEST_INVERTED and interval[1] > -SMALLEST_INVERTED


def _is_bounded(interval: tuple[float, float]) -> bool:
    """Is it known to be no activation of any size? Those are x * sigmoid(x), too."""
    return interval[0] >= 0 or magnitude(interval) < math.inf
