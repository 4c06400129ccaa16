"""Find matrix products whose sums may be beyond fp16, for instance x x^T, or k^T v in linear attention.

The result of a layer is assumed to be within fp16 unless its weights, times activations of assumed size, sum up to
more. Products of two values that are not constants compute in fp32, except those of attention and those of values that
were scaled down before. The scores q @ k stay in fp16: a Softmax of scores beyond 65504 is one-hot anyway, and these
products are most of a transformer's time. softmax(scores) @ v is at most as large as v, since the rows of a Softmax sum
up to 1.
"""

import math

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from triune.graph.half.bounds import MOST_ELEMENTS
from triune.graph.half.intervals import magnitude
from triune.graph.half.limits import LARGEST
from triune.graph.half.operators import (
    OVERFLOW_TOLERANT,
    RESHAPES,
    SCORES_TO_SOFTMAX,
    SOFTMAX_TO_PRODUCT,
    WEIGHT_ARITHMETIC,
)
from triune.graph.half.producers import DEEPEST, Producers
from triune.graph.half.scale import scales_of
from triune.graph.packed import packed_of
from triune.graph.values import attributes_of


def may_leave(node: NodeProto, producers: Producers, ordinary: float, weighed: float) -> bool:
    """Whether the sums of a matrix product may be beyond fp16.

    Args:
        node: a product of matrices.
        producers: the nodes of the graph.
        ordinary: the assumed absolute value of activations that nothing is known about.
        weighed: the assumed absolute value of activations that a layer's weights multiply.
    """
    names = list(node.input[:2])
    sizes = [magnitude(producers.bounds.of(name)) for name in names]
    weights = [is_weight(name, producers) for name in names]
    if all(weights):
        return False
    if any(weights):
        position = weights.index(True)
        return _largest_sum_of_weights(node, position, producers) * min(sizes[1 - position], weighed) > LARGEST
    count = _num_terms(node, producers)
    is_square = len({_before_reshapes(name, producers) for name in names}) == 1
    if (count <= 1 and not is_square) or any(
        _is_softmax(name, producers) or _is_scaled_down(name, producers) for name in names
    ):
        return False
    if _tolerates_overflow(node.output[0], producers):
        return False
    if all(size == math.inf for size in sizes):
        return True
    return count * math.prod(min(size, ordinary) for size in sizes) > LARGEST


def is_weight(name: str, producers: Producers, depth: int = 0) -> bool:
    """Whether a value is computed only from constants."""
    if producers.values.tensor(name) is not None:
        return True
    node = producers.of(name)
    if node is None or node.op_type not in WEIGHT_ARITHMETIC or depth > DEEPEST:
        return False
    return all(is_weight(each, producers, depth + 1) for each in node.input if each)


def _largest_sum_of_weights(node: NodeProto, position: int, producers: Producers) -> float:
    """The weights of each output channel are summed; returns the largest absolute value of these sums, 0 if the weights
    are too many to check.
    """
    array = _weights(node.input[position], producers)
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


def _weights(name: str, producers: Producers) -> NDArray[np.generic] | None:
    """The weights that a layer multiplies by, dequantized if they are quantized; None if they are computed otherwise,
    or too many to check.
    """
    values = producers.values
    if values.tensor(name) is not None:
        return values.constant(name) if magnitude(producers.bounds.of(name)) < math.inf else None
    node = producers.of(name)
    if node is None:
        return None
    if node.op_type == "Transpose":
        array, perm = _weights(node.input[0], producers), attributes_of(node).get("perm")
        return None if array is None else array.transpose(perm)
    levels = values.tensor(node.input[0]) if node.input else None
    if levels is None or math.prod(levels.dims) > MOST_ELEMENTS:
        return None
    packed = packed_of(node, values.tensor)
    return None if packed is None else packed.whole()


def _num_terms(node: NodeProto, producers: Producers) -> float:
    """The number of products that are summed for one element of the result; infinite if it is not known."""
    shape = producers.values.shape(node.input[0])
    if node.op_type not in ("MatMul", "Gemm"):
        shape = producers.values.shape(node.input[1])
        counted = (shape or ())[1:]
    elif node.op_type == "Gemm" and attributes_of(node).get("transA", 0):
        counted = (shape or ())[:1]
    else:
        counted = (shape or ())[-1:]
    return math.inf if shape is None or None in counted else float(math.prod(size or 0 for size in counted))


def _before_reshapes(name: str, producers: Producers) -> str:
    """The value before the reshapes and transpositions that end in `name`; `name` itself if there are none."""
    node = producers.of(name)
    while node is not None and node.op_type in RESHAPES:
        name = node.input[0]
        node = producers.of(name)
    return name


def _is_scaled_down(name: str, producers: Producers) -> bool:
    """Whether a value was multiplied by a constant below 1, by which models keep products within fp16."""
    node = producers.of(_before_reshapes(name, producers))
    return node is not None and any(not scale.name for _, scale in scales_of(producers.values, node))


def _is_softmax(name: str, producers: Producers) -> bool:
    """Whether a value is a Softmax, or exp(x) / sum(exp(x)), perhaps reshaped or masked afterwards."""
    for _ in range(DEEPEST):
        node = producers.of(name)
        if node is None:
            return False
        if node.op_type == "Softmax" or (node.op_type == "Div" and _is_sum_of_exp(node.input[1], producers)):
            return True
        if node.op_type not in SOFTMAX_TO_PRODUCT:
            return False
        floats = [each for each in node.input if each and producers.values.elem_type(each) == TensorProto.FLOAT]
        computed = [each for each in floats if producers.of(each) is not None]
        if not computed:
            return False
        name = computed[0]
    return False


def _is_sum_of_exp(name: str, producers: Producers) -> bool:
    total = producers.of(name)
    producer = None if total is None or total.op_type != "ReduceSum" else producers.of(total.input[0])
    return producer is not None and producer.op_type == "Exp"


def _tolerates_overflow(name: str, producers: Producers) -> bool:
    """Whether all paths from a value end in operators of `OVERFLOW_TOLERANT`, which compute the same from infinity as
    from a large number.
    """
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
