"""Find matrix products whose sums may be beyond fp16, as sums of squares are: x x^T, k^T v of linear attention.

Products with a layer's weights are taken to be within fp16 if the sums of its weights are of ordinary size. Products of
two computed values compute in fp32, but for those of attention and those of values that were scaled down before.

Scores, which end in a Softmax, stay in fp16: a Softmax of scores beyond 65504 is one-hot anyway, and these products are
most of a transformer. The product of a Softmax, whose rows sum up to 1, with values is at most as large as the values.
"""

import math

import numpy as np
from onnx import NodeProto, TensorProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.limits import LARGEST
from triune.graph.half.operators import (
    OVERFLOW_TOLERANT,
    RESHAPES,
    SCORES_TO_SOFTMAX,
    SHARES_TO_VALUES,
    WEIGHT_ARITHMETIC,
)
from triune.graph.half.producers import DEEPEST, Producers
from triune.graph.half.scale import scales_of
from triune.graph.values import attributes_of


def may_leave(node: NodeProto, producers: Producers, ordinary: float, weighed: float) -> bool:
    """Whether the sums of a matrix product may be beyond fp16.

    Args:
        node: a product of matrices.
        producers: the nodes of the graph.
        ordinary: the assumed size of activations of which nothing is known.
        weighed: the assumed size of activations that a layer's weights multiply.
    """
    names = list(node.input[:2])
    sizes = [magnitude(producers.bounds.of(name)) for name in names]
    weights = [is_weight(name, producers) for name in names]
    if all(weights):
        return False
    if any(weights):
        position = weights.index(True)
        return _sum(node, position, producers) * min(sizes[1 - position], weighed) > LARGEST
    count = _count(node, producers)
    is_square = len({_viewed(name, producers) for name in names}) == 1
    if (count <= 1 and not is_square) or any(
        _is_of_shares(name, producers) or _is_scaled(name, producers) for name in names
    ):
        return False
    if _ends(node.output[0], producers):
        return False
    if all(size == math.inf for size in sizes):
        return True
    return count * math.prod(min(size, ordinary) for size in sizes) > LARGEST


def is_weight(name: str, producers: Producers, depth: int = 0) -> bool:
    """Whether a value is computed from constants alone."""
    if producers.values.tensor(name) is not None:
        return True
    node = producers.of(name)
    if node is None or node.op_type not in WEIGHT_ARITHMETIC or depth > DEEPEST:
        return False
    return all(is_weight(each, producers, depth + 1) for each in node.input if each)


def _sum(node: NodeProto, position: int, producers: Producers) -> float:
    """The largest sum of the weights of one output; 0 where there are too many weights to check, or they are packed."""
    name = node.input[position]
    if magnitude(producers.bounds.of(name)) == math.inf:
        return 0.0
    array = producers.values.constant(name)
    if array is None or not array.ndim:
        return 0.0
    match node.op_type:
        case "MatMul":
            axes = (max(array.ndim - 2, 0),) if position else (array.ndim - 1,)
        case "Gemm":
            is_transposed = bool(attributes_of(node).get("transB" if position else "transA", 0))
            axes = (int(is_transposed == bool(position)),)
        case _:
            axes = tuple(axis for axis in range(array.ndim) if axis != int(node.op_type == "ConvTranspose"))
    return float(np.abs(array.astype(np.float64).sum(axes)).max(initial=0))


def _count(node: NodeProto, producers: Producers) -> float:
    """The number of products that are summed up for one output; infinite where it is not known."""
    shape = producers.values.shape(node.input[0])
    if node.op_type not in ("MatMul", "Gemm"):
        shape = producers.values.shape(node.input[1])
        counted = (shape or ())[1:]
    elif node.op_type == "Gemm" and attributes_of(node).get("transA", 0):
        counted = (shape or ())[:1]
    else:
        counted = (shape or ())[-1:]
    return math.inf if shape is None or None in counted else float(math.prod(size or 0 for size in counted))


def _viewed(name: str, producers: Producers) -> str:
    """The value that `name` is a reshape of, through any number of reshapes; else `name` itself."""
    node = producers.of(name)
    while node is not None and node.op_type in RESHAPES:
        name = node.input[0]
        node = producers.of(name)
    return name


def _is_scaled(name: str, producers: Producers) -> bool:
    """Whether a value is scaled by a constant below 1, so that products of it are within fp16."""
    node = producers.of(_viewed(name, producers))
    return node is not None and any(not scale.name for _, scale in scales_of(producers.values, node))


def _is_of_shares(name: str, producers: Producers) -> bool:
    """Whether a value is the result of a Softmax, or of exp(x) / sum(exp(x)), whose rows sum up to 1."""
    for _ in range(DEEPEST):
        node = producers.of(name)
        if node is None:
            return False
        if node.op_type == "Softmax" or (node.op_type == "Div" and _is_total(node.input[1], producers)):
            return True
        if node.op_type not in SHARES_TO_VALUES:
            return False
        floats = [each for each in node.input if each and producers.values.elem_type(each) == TensorProto.FLOAT]
        computed = [each for each in floats if producers.of(each) is not None]
        if not computed:
            return False
        name = computed[0]
    return False


def _is_total(name: str, producers: Producers) -> bool:
    total = producers.of(name)
    producer = None if total is None or total.op_type != "ReduceSum" else producers.of(total.input[0])
    return producer is not None and producer.op_type == "Exp"


def _ends(name: str, producers: Producers) -> bool:
    """Whether all paths from a value end in operators of `OVERFLOW_TOLERANT`."""
    seen, names = set[str](), [name]
    while names:
        each = names.pop()
        if each in seen:
            continue
        seen.add(each)
        readers = producers.readers(each)
        if not readers or producers.is_output(each) or len(seen) > 4 * DEEPEST:
            return False
        for reader in readers:
            if reader.op_type in SCORES_TO_SOFTMAX:
                names += reader.output
            elif reader.op_type not in OVERFLOW_TOLERANT:
                return False
    return True
