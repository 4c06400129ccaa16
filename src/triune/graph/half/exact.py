"""Nodes for which fp16 is not exact enough, and how far before them fp32 must begin."""

import numpy as np
from onnx import NodeProto, TensorProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.operators import COMPARISONS, COPY_ELEMENTS, DENSE_PRODUCTS, EXACT_ARITHMETIC, RANKINGS
from triune.graph.half.partners import coordinate_producers
from triune.graph.half.producers import DEEPEST, Producers
from triune.graph.values import attributes_of

_INTEGERS = (TensorProto.INT32, TensorProto.INT64)

_EXACT = 2048.0
"""fp16 holds all whole numbers up to here."""

_FEW_PIXELS = 32
"""In images up to this size fp16 holds coordinates to 1/100 of a pixel."""


def exact_producers(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes that compute a coordinate (a float that is rounded to an index, or lies between pixels), an angle, a
    quantization level, a comparison, a remainder or a difference; none where fp16 is exact enough for the node.

    Only where they are computed from inputs and whole numbers: what layers compute is rounded anyway. An input that is
    rounded to fp16 may lie on the other side of a threshold of a decision tree.
    """
    if not node.input:
        return []
    operand = node.input[0]
    if producers.values.elem_type(operand) != TensorProto.FLOAT:
        return []
    if node.op_type in COMPARISONS:
        return _compared(node, producers)
    if node.op_type == "GridSample":
        return _sampled(node, producers)
    if node.op_type == "QuantizeLinear":
        # A number near a tie is rounded to another level if it was rounded to fp16 before.
        return _exactly(node, producers)
    if node.op_type in ("Add", "Sub"):
        return _beside_one(node, producers) or _difference(node, producers) or _beside_pixels(node, producers)
    if node.op_type == "Log":
        total = producers.of(operand)
        return [total, node] if total is not None and total.op_type == "Add" and _has_one(total, producers) else []
    if node.op_type in RANKINGS:
        return _exactly(node, producers)
    if node.op_type == "Softmax":
        copies = _copies_of_given(operand, producers)
        return [] if copies is None else [*copies, node]
    if node.op_type == "Mod":
        # The remainder's error is the divisor's rounding error times the quotient.
        return [each for name in node.input for each in exact(name, producers, {})] + [node]
    if node.op_type not in ("Sin", "Cos", "Tan") and not _is_rounding(node):
        return []
    exactly = _exactly(node, producers) if _is_rounding(node) else []
    if exactly:
        return exactly
    if magnitude(producers.bounds.of(operand)) <= 8:
        return []
    if producers.is_given(operand):
        return [node]
    found = exact(operand, producers, {})
    return [*found, node] if found else []


def _exactly(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The node with those that compute its first operand, if that is an input or exact and without matrix products."""
    before = _without_products(node.input[0], producers)
    return [*before, node] if before or producers.is_given(node.input[0]) else []


def _copies_of_given(name: str, producers: Producers, depth: int = 0) -> list[NodeProto] | None:
    """The nodes that hand elements of the model's inputs on to a value, operands first; None where others make it."""
    if producers.is_given(name):
        return []
    node = producers.of(name)
    if node is None or node.op_type not in COPY_ELEMENTS or depth > DEEPEST:
        return None
    found: list[NodeProto] = []
    is_of_given = False
    for operand in producers.floats(node):
        if producers.values.constant(operand) is not None:
            continue
        before = _copies_of_given(operand, producers, depth + 1)
        if before is None:
            return None
        is_of_given = True
        found += before
    return [*found, node] if is_of_given else None


def _sampled(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes that sample an image between its pixels, with those that compute the coordinates.

    All nodes that compute the coordinates are returned if they start at inputs and whole numbers. Else only those that
    add, scale and concatenate results of layers are.

    Coordinates from -1 to 1 have a precision of 1/2000 in fp16: in an image of 1000 pixels this is half a pixel.
    """
    sizes = (producers.values.shape(node.input[0]) or (None, None, None))[2:]
    if all(size is not None and size <= _FEW_PIXELS for size in sizes):
        return []
    return [*(exact(node.input[1], producers, {}) or coordinate_producers(node.input[1], producers)), node]


def _is_rounding(node: NodeProto) -> bool:
    """Whether a node rounds to whole numbers."""
    return node.op_type in ("Floor", "Ceil", "Round") or (
        node.op_type == "Cast" and attributes_of(node).get("to") in _INTEGERS
    )


def _beside_one(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes of exp(x) - 1, which is 0 in fp16 where x is small; no nodes if `node` computes something else."""
    exponential = producers.of(node.input[0])
    is_one = exponential is not None and exponential.op_type == "Exp" and _has_one(node, producers)
    return [exponential, node] if exponential is not None and is_one else []


def _beside_pixels(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes that compute the distances of a coordinate to the pixels 0, 1, 2 ... of a row, as RoiAlign does; else
    none.
    """
    for position, name in enumerate(node.input if node.op_type == "Sub" else ()):
        row = producers.values.constant(name)
        if row is not None and row.size > _FEW_PIXELS and np.array_equal(row.reshape(-1), np.arange(row.size)):
            other = node.input[1 - position]
            return [*(exact(other, producers, {}) or coordinate_producers(other, producers)), node]
    return []


def _has_one(node: NodeProto, producers: Producers) -> bool:
    """Whether a node adds or subtracts 1."""
    arrays = [producers.values.constant(name) for name in node.input]
    return any(array is not None and array.size == 1 and abs(array.reshape(-1)[0]) == 1 for array in arrays)


def _difference(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes of a difference, perhaps small, of numbers beyond 2048 that are whole or rounded; else none.

    fp16 loses `x - floor(x)` entirely there, and the distance from 3000 to 3001 as well.
    """
    found = [node]
    is_rounded = False
    for operand in node.input:
        array = producers.values.constant(operand)
        if array is not None and np.abs(array.astype(np.float64)).max(initial=0) < _EXACT:
            return []
        if array is not None or producers.is_given(operand):
            continue
        before = exact(operand, producers, {})
        if not before or any(each.op_type in DENSE_PRODUCTS for each in before):
            return []
        found += before
        is_rounded = is_rounded or any(is_beyond(each, producers) for each in before)
    return found if is_rounded and magnitude(producers.bounds.of(node.output[0])) > _EXACT else []


def is_beyond(node: NodeProto, producers: Producers) -> bool:
    """Whether a node may compute whole numbers that fp16 cannot represent."""
    is_of_integers = node.op_type == "Cast" and producers.values.elem_type(node.input[0]) in _INTEGERS
    is_rounded = node.op_type in ("Floor", "Ceil", "Round", "Mod")
    return (is_of_integers or is_rounded) and magnitude(producers.bounds.of(node.output[0])) > _EXACT


def _compared(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The comparison `node` and the nodes that compute its operands, if these are exact and without matrix products."""
    found = [node]
    for operand in node.input:
        if producers.of(operand) is not None:
            before = _without_products(operand, producers)
            if not before:
                return []
            found += before
    return found


def _without_products(name: str, producers: Producers) -> list[NodeProto]:
    """The nodes that compute an exact value; none where products of matrices are among them: these are layers."""
    before = exact(name, producers, {})
    return [] if any(each.op_type in DENSE_PRODUCTS for each in before) else before


def exact(name: str, producers: Producers, seen: dict[str, bool], depth: int = 0) -> list[NodeProto]:
    """The nodes that compute a value, if all of them are `EXACT_ARITHMETIC`; none otherwise."""
    node = producers.of(name)
    if node is None or node.op_type not in EXACT_ARITHMETIC | COPY_ELEMENTS or depth > DEEPEST:
        return []
    found = [node]
    if producers.values.elem_type(node.input[0]) == TensorProto.FLOAT or node.op_type == "Where":
        for operand in node.input:
            if producers.of(operand) is None or producers.values.elem_type(operand) != TensorProto.FLOAT:
                continue
            if operand not in seen:
                seen[operand] = True
                before = exact(operand, producers, seen, depth + 1)
                if not before:
                    seen[operand] = False
                found += before
            if not seen[operand]:
                return []
    if node.op_type not in EXACT_ARITHMETIC and any(each.op_type in DENSE_PRODUCTS for each in found):
        # A rectifier or a pool after a product is a layer.
        return []
    return found
