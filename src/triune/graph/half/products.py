"""Products of matrices whose sums may be beyond fp16, as sums of squares are: x x^T, k^T v of linear attention.

Products of a layer's weights are taken to be within fp16 where sums of its weights are ordinary. Of two computed values
nothing is known: such products are in fp32, but for those of attention, and of what is scaled down before.

Scores, which end in a Softmax, stay in fp16: scores beyond 65504 are in no Softmax that tells anything, and they are
most of a transformer. Products of a Softmax's shares, whose sum is 1, are as large as what they share out.
"""

import math

import numpy as np
from onnx import NodeProto, TensorProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.limits import LARGEST
from triune.graph.half.makers import DEEPEST, Makers
from triune.graph.half.operators import (
    OVERFLOW_TOLERANT,
    RESHAPES,
    SCORES_TO_SOFTMAX,
    SHARES_TO_VALUES,
    WEIGHT_ARITHMETIC,
)
from triune.graph.half.scale import scales_of
from triune.graph.values import attributes_of


def may_leave(node: NodeProto, makers: Makers, ordinary: float, weighed: float) -> bool:
    """May its sums be beyond fp16?

    Args:
        node: a product of matrices.
        makers: of the graph.
        ordinary: how large activations are taken to be of which nothing is known, beside what is known.
        weighed: the same of those that a layer weighs.
    """
    names = list(node.input[:2])
    sizes = [magnitude(makers.bounds.of(name)) for name in names]
    weights = [is_weight(name, makers) for name in names]
    if all(weights):
        return False
    if any(weights):
        place = weights.index(True)
        return _sum(node, place, makers) * min(sizes[1 - place], weighed) > LARGEST
    count = _count(node, makers)
    is_square = len({_viewed(name, makers) for name in names}) == 1
    if (count <= 1 and not is_square) or any(_is_of_shares(name, makers) or _is_scaled(name, makers) for name in names):
        return False
    if _ends(node.output[0], makers):
        return False
    if all(size == math.inf for size in sizes):
        return True
    return count * math.prod(min(size, ordinary) for size in sizes) > LARGEST


def is_weight(name: str, makers: Makers, depth: int = 0) -> bool:
    """Is it made of constants alone?"""
    if makers.values.tensor(name) is not None:
        return True
    node = makers.of(name)
    if node is None or node.op_type not in WEIGHT_ARITHMETIC or depth > DEEPEST:
        return False
    return all(is_weight(each, makers, depth + 1) for each in node.input if each)


def _sum(node: NodeProto, place: int, makers: Makers) -> float:
    """The largest sum of the weights of one result; 0 where the weights are too many to look at, or packed."""
    name = node.input[place]
    if magnitude(makers.bounds.of(name)) == math.inf:
        return 0.0
    array = makers.values.constant(name)
    if array is None or not array.ndim:
        return 0.0
    match node.op_type:
        case "MatMul":
            axes = (max(array.ndim - 2, 0),) if place else (array.ndim - 1,)
        case "Gemm":
            is_transposed = bool(attributes_of(node).get("transB" if place else "transA", 0))
            axes = (int(is_transposed == bool(place)),)
        case _:
            axes = tuple(axis for axis in range(array.ndim) if axis != int(node.op_type == "ConvTranspose"))
    return float(np.abs(array.astype(np.float64).sum(axes)).max(initial=0))


def _count(node: NodeProto, makers: Makers) -> float:
    """How many numbers are summed up for one result; infinite where that is not known."""
    shape = makers.values.shape(node.input[0])
    if node.op_type not in ("MatMul", "Gemm"):
        shape = makers.values.shape(node.input[1])
        counted = (shape or ())[1:]
    elif node.op_type == "Gemm" and attributes_of(node).get("transA", 0):
        counted = (shape or ())[:1]
    else:
        counted = (shape or ())[-1:]
    return math.inf if shape is None or None in counted else float(math.prod(size or 0 for size in counted))


def _viewed(name: str, makers: Makers) -> str:
    """What a value has the elements of."""
    node = makers.of(name)
    while node is not None and node.op_type in RESHAPES:
        name = node.input[0]
        node = makers.of(name)
    return name


def _is_scaled(name: str, makers: Makers) -> bool:
    """Is it scaled by a constant below 1, so that products of it are within fp16?"""
    node = makers.of(_viewed(name, makers))
    return node is not None and any(not scale.name for _, scale in scales_of(makers.values, node))


def _is_of_shares(name: str, makers: Makers) -> bool:
    """Are they shares of a Softmax, the sum of which is 1, or of what is divided by its sum?"""
    for _ in range(DEEPEST):
        node = makers.of(name)
        if node is None:
            return False
        if node.op_type == "Softmax" or (node.op_type == "Div" and _is_total(node.input[1], makers)):
            return True
        if node.op_type not in SHARES_TO_VALUES:
            return False
        floats = [each for each in node.input if each and makers.values.elem_type(each) == TensorProto.FLOAT]
        computed = [each for each in floats if makers.of(each) is not None]
        if not computed:
            return False
        name = computed[0]
    return False


def _is_total(name: str, makers: Makers) -> bool:
    total = makers.of(name)
    maker = None if total is None or total.op_type != "ReduceSum" else makers.of(total.input[0])
    return maker is not None and maker.op_type == "Exp"


def _ends(name: str, makers: Makers) -> bool:
    """Do all ways from it end where infinite is no more than large, or in a Softmax?"""
    seen, names = set[str](), [name]
    while names:
        each = names.pop()
        if each in seen:
            continue
        seen.add(each)
        readers = makers.readers(each)
        if not readers or makers.is_output(each) or len(seen) > 4 * DEEPEST:
            return False
        for reader in readers:
            if reader.op_type in SCORES_TO_SOFTMAX:
                names += reader.output
            elif reader.op_type not in OVERFLOW_TOLERANT:
                return False
    return True
