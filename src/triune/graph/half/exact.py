"""Find the nodes for which the 11 bits of fp16's significand are too few, and the nodes before them that must compute
in fp32, too.
"""

import numpy as np
from onnx import NodeProto, TensorProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.operators import (
    COMPARISONS,
    COPY_ELEMENTS,
    DENSE_PRODUCTS,
    EXACT_ARITHMETIC,
    FUNCTIONS,
    RANKINGS,
)
from triune.graph.half.partners import coordinate_producers
from triune.graph.half.producers import DEEPEST, Producers
from triune.graph.half.whole_numbers import whole_number_producers
from triune.graph.values import attributes_of

_INTEGERS = (TensorProto.INT32, TensorProto.INT64)

_EXACT = 2048.0
"""fp16 represents every integer up to 2048; of the larger ones it skips some (2049)."""

_FEW_PIXELS = 32
"""In an image of at most this many pixels along an axis, rounding to fp16 moves a coordinate by at most 1/100 of a
pixel.
"""


def exact_producers(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """Find the nodes that must compute in fp32 because fp16 is not exact enough for what `node` computes.

    That may be a coordinate (a float that is rounded to an index, or lies between pixels), an angle, a quantization
    level, a comparison, a remainder or a difference. [] if fp16 is exact enough.

    Only values that are computed from inputs and integers count, since results of layers are rounded anyway. For
    instance, an input that is rounded to fp16 may fall on the other side of a threshold of a decision tree.
    """
    if not node.input:
        return []
    operand = node.input[0]
    if producers.values.elem_type(operand) != TensorProto.FLOAT:
        return []
    if node.op_type in COMPARISONS:
        return _comparison_producers(node, producers)
    if node.op_type == "GridSample":
        return _sampling_producers(node, producers)
    if node.op_type == "QuantizeLinear":
        # Compute the operand in fp32: a number near the middle between two quantization levels, rounded to fp16, may
        # become the wrong level.
        return _with_exact_operand(node, producers)
    if node.op_type in ("Add", "Sub"):
        return (
            _expm1_producers(node, producers)
            or _difference_producers(node, producers)
            or _pixel_distance_producers(node, producers)
        )
    if node.op_type == "Log":
        total = producers.of(operand)
        return [total, node] if total is not None and total.op_type == "Add" and _has_one(total, producers) else []
    if node.op_type in RANKINGS:
        return _with_exact_operand(node, producers)
    if node.op_type == "Softmax":
        copies = copies_of_inputs(operand, producers)
        return [] if copies is None else [*copies, node]
    if node.op_type in ("Mod", "Range"):
        # Compute all operands in fp32, too. mod(x, d) = x - d * floor(x / d) multiplies an error of d by the quotient.
        # The length of a range is ceil((limit - start) / delta): from 0 to 1 by 0.1 it would have 11 elements, since
        # fp16 rounds 0.1 down.
        return [each for name in node.input for each in exact_arithmetic(name, producers, {})] + [node]
    if node.op_type not in ("Sin", "Cos", "Tan") and not is_rounding(node):
        return []
    exactly = _with_exact_operand(node, producers) if is_rounding(node) else []
    if exactly:
        return exactly
    if is_rounding(node) and (whole := whole_number_producers(node, producers)):
        return whole
    if magnitude(producers.bounds.of(operand)) <= 8:
        return []
    if producers.is_input(operand):
        return [node]
    found = exact_arithmetic(operand, producers, {})
    return [*found, node] if found else []


def _with_exact_operand(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The node and the nodes that compute its first operand; [] unless that operand is an input, or computed from
    inputs and integers by `EXACT_ARITHMETIC` without matrix products.
    """
    before = _exact_without_products(node.input[0], producers)
    return [*before, node] if before or producers.is_input(node.input[0]) else []


def copies_of_inputs(name: str, producers: Producers, depth: int = 0) -> list[NodeProto] | None:
    """The nodes that copy elements of the model's inputs to a value, operands first; None if another node computes
    it.
    """
    if producers.is_input(name):
        return []
    node = producers.of(name)
    if node is None or node.op_type not in COPY_ELEMENTS or depth > DEEPEST:
        return None
    found: list[NodeProto] = []
    is_of_input = False
    for operand in producers.floats(node):
        if producers.values.constant(operand) is not None:
            continue
        before = copies_of_inputs(operand, producers, depth + 1)
        if before is None:
            return None
        is_of_input = True
        found += before
    return [*found, node] if is_of_input else None


def _sampling_producers(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The GridSample `node` and the nodes that compute its coordinates; [] for small images.

    If the coordinates are computed from inputs and integers, all nodes that compute them are returned. If layers
    compute them, only the nodes that add, scale and concatenate after the layers are returned.

    fp16 rounds coordinates from -1 to 1 to multiples of 1/2048, or less near 0: 1/4 pixel in an image of 1000 pixels.
    """
    sizes = (producers.values.shape(node.input[0]) or (None, None, None))[2:]
    if all(size is not None and size <= _FEW_PIXELS for size in sizes):
        return []
    return [*(exact_arithmetic(node.input[1], producers, {}) or coordinate_producers(node.input[1], producers)), node]


def is_rounding(node: NodeProto) -> bool:
    """Whether a node rounds floats to integers: Floor, Ceil, Round, or a Cast to an integer type."""
    return node.op_type in ("Floor", "Ceil", "Round") or (
        node.op_type == "Cast" and attributes_of(node).get("to") in _INTEGERS
    )


def _expm1_producers(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes of exp(x) - 1, which is 0 in fp16 if x is small; [] if `node` computes something else."""
    exponential = producers.of(node.input[0])
    is_one = exponential is not None and exponential.op_type == "Exp" and _has_one(node, producers)
    return [exponential, node] if exponential is not None and is_one else []


def _pixel_distance_producers(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes of coordinate - [0, 1, 2, ...], the distances to the pixels of a row, as RoiAlign computes them; [] for
    any other node.
    """
    for position, name in enumerate(node.input if node.op_type == "Sub" else ()):
        row = producers.values.constant(name)
        if row is not None and row.size > _FEW_PIXELS and np.array_equal(row.reshape(-1), np.arange(row.size)):
            other = node.input[1 - position]
            return [*(exact_arithmetic(other, producers, {}) or coordinate_producers(other, producers)), node]
    return []


def _has_one(node: NodeProto, producers: Producers) -> bool:
    """Whether an operand of the node is the constant 1 or -1."""
    arrays = [producers.values.constant(name) for name in node.input]
    return any(array is not None and array.size == 1 and abs(array.reshape(-1)[0]) == 1 for array in arrays)


def _difference_producers(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes of a sum or difference of exact values, one of which is rounded to integers beyond 2048; [] for any
    other node.

    Beyond 2048, fp16 has no fractions and no odd integers: `x - floor(x)` becomes 0 there, and so does 3001 - 3000.
    """
    found = [node]
    is_rounded = False
    for operand in node.input:
        array = producers.values.constant(operand)
        if array is not None and np.abs(array.astype(np.float64)).max(initial=0) < _EXACT:
            return []
        if array is not None or producers.is_input(operand):
            continue
        before = exact_arithmetic(operand, producers, {})
        if not before or any(each.op_type in DENSE_PRODUCTS for each in before):
            return []
        found += before
        is_rounded = is_rounded or any(may_exceed_exact_integers(each, producers) for each in before)
    return found if is_rounded and magnitude(producers.bounds.of(node.output[0])) > _EXACT else []


def may_exceed_exact_integers(node: NodeProto, producers: Producers) -> bool:
    """Whether a node casts or rounds to integers that may be beyond 2048, so that fp16 cannot represent all of them."""
    is_of_integers = node.op_type == "Cast" and producers.values.elem_type(node.input[0]) in _INTEGERS
    is_rounded = node.op_type in ("Floor", "Ceil", "Round", "Mod")
    return (is_of_integers or is_rounded) and magnitude(producers.bounds.of(node.output[0])) > _EXACT


def _comparison_producers(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The comparison `node` and the nodes that compute its operands.

    [] unless the operands are computed from inputs and integers by `EXACT_ARITHMETIC` without matrix products.
    """
    found = [node]
    for operand in node.input:
        if producers.of(operand) is not None:
            before = _exact_without_products(operand, producers)
            if not before:
                return []
            found += before
    return found


def _exact_without_products(name: str, producers: Producers) -> list[NodeProto]:
    """The nodes that `exact_arithmetic` finds for a value; [] if a matrix product is among them.

    A matrix product counts as a layer of the network, whose results are rounded anyway.
    """
    before = exact_arithmetic(name, producers, {})
    return [] if any(each.op_type in DENSE_PRODUCTS for each in before) else before


def exact_arithmetic(name: str, producers: Producers, seen: dict[str, bool], depth: int = 0) -> list[NodeProto]:
    """The nodes that compute a value from inputs and integers, if the operators of all of them are in
    `EXACT_ARITHMETIC`, `COPY_ELEMENTS` or `FUNCTIONS`; else [].

    `seen` holds for each value that was visited whether all nodes that compute it are of these operators.
    """
    node = producers.of(name)
    if node is None or node.op_type not in EXACT_ARITHMETIC | COPY_ELEMENTS | FUNCTIONS or depth > DEEPEST:
        return []
    found = [node]
    if producers.values.elem_type(node.input[0]) == TensorProto.FLOAT or node.op_type == "Where":
        for operand in node.input:
            if producers.of(operand) is None or producers.values.elem_type(operand) != TensorProto.FLOAT:
                continue
            if operand not in seen:
                seen[operand] = True
                before = exact_arithmetic(operand, producers, seen, depth + 1)
                if not before:
                    seen[operand] = False
                found += before
            if not seen[operand]:
                return []
    if node.op_type not in EXACT_ARITHMETIC and any(each.op_type in DENSE_PRODUCTS for each in found):
        # Relu, Sigmoid or MaxPool after a matrix product is part of a layer, whose results are rounded anyway.
        return []
    return found
