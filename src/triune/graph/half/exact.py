"""What fp16 is not exact enough for: how far back fp32 must begin for a node to which its rounding counts."""

import numpy as np
from onnx import NodeProto, TensorProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.makers import DEEPEST, Makers
from triune.graph.half.operators import COMPARISONS, DENSE_PRODUCTS, EXACT_ARITHMETIC, RANKINGS
from triune.graph.half.partners import place_makers
from triune.graph.values import attributes_of

_INTEGERS = (TensorProto.INT32, TensorProto.INT64)

_EXACT = 2048.0
"""fp16 holds all whole numbers up to here."""

_FEW_PIXELS = 32
"""Of a smaller image fp16 has the places to a hundredth of a pixel."""


def exact_makers(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """What computes a place (a float that becomes an integer, or is between pixels), an angle, a level, a comparison, a
    remainder or a difference.

    Only of inputs and whole numbers: what layers compute is rounded anyway. A row of a table that is rounded to fp16
    may lie on the other side of the split of a tree.
    """
    if not node.input:
        return []
    operand = node.input[0]
    if makers.values.elem_type(operand) != TensorProto.FLOAT:
        return []
    if node.op_type in COMPARISONS:
        return _compared(node, makers)
    if node.op_type == "GridSample":
        return _sampled(node, makers)
    if node.op_type == "QuantizeLinear":
        # A number beside a tie goes to another level where it is rounded before.
        before = exact(operand, makers, {})
        is_exact = bool(before) and not any(each.op_type in DENSE_PRODUCTS for each in before)
        return [*before, node] if is_exact or makers.is_given(operand) else []
    if node.op_type in ("Add", "Sub"):
        return _beside_one(node, makers) or _difference(node, makers) or _beside_pixels(node, makers)
    if node.op_type == "Log":
        total = makers.of(operand)
        return [total, node] if total is not None and total.op_type == "Add" and _has_one(total, makers) else []
    if node.op_type in RANKINGS or node.op_type == "Softmax":
        return [node] if makers.is_given(operand) else []
    if node.op_type == "Mod":
        # The quotient multiplies what the divisor is rounded by.
        return [each for name in node.input for each in exact(name, makers, {})] + [node]
    if magnitude(makers.bounds.of(operand)) <= 8:
        return []
    if node.op_type not in ("Sin", "Cos", "Tan") and not _is_place(node):
        return []
    if makers.is_given(operand):
        return [node]
    found = exact(operand, makers, {})
    return [*found, node] if found else []


def _sampled(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """What reads an image between its pixels, with what makes the places.

    All of it where that is exact, else what adds up, scales and joins what layers make.

    fp16 has a place in an image of 1000 to half a pixel, of the places from -1 to 1 a two-thousandth.
    """
    sizes = (makers.values.shape(node.input[0]) or (None, None, None))[2:]
    if all(size is not None and size <= _FEW_PIXELS for size in sizes):
        return []
    return [*(exact(node.input[1], makers, {}) or place_makers(node.input[1], makers)), node]


def _is_place(node: NodeProto) -> bool:
    """Does it take what is behind the point?"""
    return node.op_type in ("Floor", "Ceil", "Round") or (
        node.op_type == "Cast" and attributes_of(node).get("to") in _INTEGERS
    )


def _beside_one(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """exp(x) - 1, of which fp16 leaves nothing where x is small."""
    exponential = makers.of(node.input[0])
    is_one = exponential is not None and exponential.op_type == "Exp" and _has_one(node, makers)
    return [exponential, node] if exponential is not None and is_one else []


def _beside_pixels(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """The distance of a place to each pixel of a row, 0, 1, 2 and so on: as RoiAlign weighs them."""
    for place, name in enumerate(node.input if node.op_type == "Sub" else ()):
        row = makers.values.constant(name)
        if row is not None and row.size > _FEW_PIXELS and np.array_equal(row.reshape(-1), np.arange(row.size)):
            other = node.input[1 - place]
            return [*(exact(other, makers, {}) or place_makers(other, makers)), node]
    return []


def _has_one(node: NodeProto, makers: Makers) -> bool:
    """Does it add or subtract 1?"""
    arrays = [makers.values.constant(name) for name in node.input]
    return any(array is not None and array.size == 1 and abs(array.reshape(-1)[0]) == 1 for array in arrays)


def _difference(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """A difference of numbers beyond 2048 that are whole or have been rounded, which may be small, and what makes them.

    Of `x - floor(x)` fp16 leaves nothing, nor of the distance from 3000 to 3001.
    """
    found = [node]
    is_rounded = False
    for operand in node.input:
        array = makers.values.constant(operand)
        if array is not None and np.abs(array.astype(np.float64)).max(initial=0) < _EXACT:
            return []
        if array is not None or makers.is_given(operand):
            continue
        before = exact(operand, makers, {})
        if not before or any(each.op_type in DENSE_PRODUCTS for each in before):
            return []
        found += before
        is_rounded = is_rounded or any(is_beyond(each, makers) for each in before)
    return found if is_rounded and magnitude(makers.bounds.of(node.output[0])) > _EXACT else []


def is_beyond(node: NodeProto, makers: Makers) -> bool:
    """Does it make whole numbers that fp16 has not, for all that is known?"""
    is_of_integers = node.op_type == "Cast" and makers.values.elem_type(node.input[0]) in _INTEGERS
    is_rounded = node.op_type in ("Floor", "Ceil", "Round", "Mod")
    return (is_of_integers or is_rounded) and magnitude(makers.bounds.of(node.output[0])) > _EXACT


def _compared(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """A comparison and what makes both of its operands, if that is exact and no product of matrices."""
    found = [node]
    for operand in node.input:
        if makers.of(operand) is not None:
            before = exact(operand, makers, {})
            if not before or any(each.op_type in DENSE_PRODUCTS for each in before):
                return []
            found += before
    return found


def exact(name: str, makers: Makers, seen: dict[str, bool], depth: int = 0) -> list[NodeProto]:
    """The nodes that make it, if all that is computed with is exact; none otherwise."""
    node = makers.of(name)
    if node is None or node.op_type not in EXACT_ARITHMETIC or depth > DEEPEST:
        return []
    found = [node]
    if makers.values.elem_type(node.input[0]) == TensorProto.FLOAT or node.op_type == "Where":
        for operand in node.input:
            if makers.of(operand) is None or makers.values.elem_type(operand) != TensorProto.FLOAT:
                continue
            if operand not in seen:
                seen[operand] = True
                before = exact(operand, makers, seen, depth + 1)
                if not before:
                    seen[operand] = False
                found += before
            if not seen[operand]:
                return []
    return found
