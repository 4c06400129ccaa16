"""Find inputs that are centered, (x - mean) / std, by a mean so large beside the deviation that rounding x loses the
difference.

fp16 keeps 11 bits of x. For example, temperatures in kelvin, (x - 288) / 0.5, have an error of a quarter of a
deviation.
"""

from typing import cast

import numpy as np
from onnx import NodeProto, TensorProto

from triune.core.datatypes import Array
from triune.graph.half.exact import copies_of_inputs
from triune.graph.half.producers import Producers
from triune.graph.values import attributes_of

_MOST = 20.0
"""The largest mean, in deviations, whose rounding is an error of at most 1/100 of a deviation."""

_MOST_ALONE = 256.0
"""The largest mean of a difference that is not scaled, for instance since a layer's weights do that: the deviation is
taken to be some tens.
"""

_MOST_RESULTS = 4096
"""A layer with more results is not examined."""


def centered_producers(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes that center an input of the model and scale the difference, in order; [] if `node` is no difference of
    an input and a constant, or fp16 resolves it.

    `node` is an Add, Sub or BatchNormalization; the scale may be in a Mul or Div before or after it. Or it is a layer
    with both folded into its weights and its bias.
    """
    if producers.is_within or node.op_type not in ("Add", "Sub", "BatchNormalization", "Gemm"):
        return []
    if producers.values.elem_type(node.input[0]) != TensorProto.FLOAT:
        return []
    if node.op_type == "Gemm":
        return _layer_producers(node, node, node.input[2] if len(node.input) > 2 else "", producers)
    if node.op_type == "BatchNormalization":
        before = copies_of_inputs(node.input[0], producers)
        mean, variance = (producers.values.constant(node.input[index]) for index in (3, 4))
        if before is None or mean is None or variance is None:
            return []
        deviation = np.sqrt(variance.astype(np.float64) + attributes_of(node).get("epsilon", 1e-5))
        return [*before, node] if _is_far(mean, deviation, _MOST) else []
    for position in (0, 1):
        mean = producers.values.constant(node.input[1 - position])
        if mean is None:
            continue
        name = node.input[position]
        maker = producers.of(name)
        if maker is not None and maker.op_type == "MatMul":
            found = _layer_producers(maker, node, node.input[1 - position], producers)
            return [*found, node] if found else []
        before = copies_of_inputs(name, producers)
        if before is not None:
            return _scaled_after(node, before, mean, producers)
        scale = producers.of(name)
        if scale is not None and scale.op_type in ("Mul", "Div") and _factor(scale, producers) is not None:
            scaled = next(each for each in scale.input if producers.values.tensor(each) is None)
            before = copies_of_inputs(scaled, producers)
            if before is not None:
                return _scaled_after(node, [*before, scale], mean, producers, alone=_MOST)
    return []


def _layer_producers(layer: NodeProto, adds: NodeProto, bias: str, producers: Producers) -> list[NodeProto]:
    """The nodes up to a Gemm or MatMul of the model's input whose bias cancels a mean of it; else [].

    Such a layer has (x - mean) / std folded into it: its weights are divided by std, and its bias cancels the mean.

    Args:
        layer: the Gemm, or the MatMul before an Add.
        adds: the node that adds the bias.
        bias: the name of what is added.
        producers: what computes its operands.
    """
    before = copies_of_inputs(layer.input[0], producers)
    if before is None or producers.values.rank(layer.input[0]) != 2:
        return []
    if layer.op_type == "Gemm" and attributes_of(adds).get("transA", 0):
        return []
    weight, added = producers.values.constant(layer.input[1]), producers.values.constant(bias) if bias else None
    if weight is None or added is None or weight.ndim != 2:
        return []
    is_turned = layer.op_type == "Gemm" and attributes_of(layer).get("transB", 0)
    matrix = (weight.T if is_turned else weight).astype(np.float64)
    is_folded = added.size == matrix.shape[1] and _cancels_a_mean(matrix, added.reshape(-1).astype(np.float64))
    return [*before, layer] if is_folded else []


def _cancels_a_mean(weight: Array, bias: Array) -> bool:
    """Whether there is a mean x, far from 0, for which x @ weight is nearly -bias in all results, which are more than
    the elements of x.
    """
    sizes = np.linalg.norm(weight, axis=0)
    if not weight.shape[0] < weight.shape[1] <= _MOST_RESULTS or not sizes.all() or not _is_far(bias, sizes, _MOST):
        return False
    scaled = weight / sizes
    target = -bias / sizes
    # The least squares solution, by the normal equations.
    mean = cast("Array", np.linalg.solve(scaled @ scaled.T + 1e-9 * np.eye(len(scaled)), scaled @ target))
    return bool(np.linalg.norm(mean @ scaled - target) < np.linalg.norm(target) / 10)


def _scaled_after(
    node: NodeProto, before: list[NodeProto], mean: Array, producers: Producers, *, alone: float = _MOST_ALONE
) -> list[NodeProto]:
    """The nodes before a difference, the difference, and what scales it, if the mean is far; else [].

    Args:
        node: the difference.
        before: the nodes that compute its operand of the input.
        mean: what is subtracted.
        producers: what computes and reads values.
        alone: how large the mean may be if nothing scales the difference.
    """
    readers = producers.readers(node.output[0])
    scales = [(reader, factor) for reader in readers if (factor := _factor(reader, producers)) is not None]
    far = [reader for reader, factor in scales if _is_far(mean, 1 / factor, _MOST)]
    if far:
        return [*before, node, *far]
    return [*before, node] if not scales and _is_far(mean, np.ones(()), alone) else []


def _factor(node: NodeProto, producers: Producers) -> Array | None:
    """The constants by which a Mul or Div multiplies a value, without 0; None for any other node."""
    if node.op_type not in ("Mul", "Div") or producers.values.elem_type(node.output[0]) != TensorProto.FLOAT:
        return None
    position = 1 if node.op_type == "Div" or producers.values.tensor(node.input[1]) is not None else 0
    array = producers.values.constant(node.input[position])
    if array is None or not array.size or producers.values.tensor(node.input[1 - position]) is not None:
        return None
    factor = np.abs(array.astype(np.float64))
    if not factor.all():
        return None
    return 1 / factor if node.op_type == "Div" else factor


def _is_far(mean: Array, deviation: Array, most: float) -> bool:
    """Whether a mean is more than `most` deviations."""
    try:
        distance = np.abs(mean.astype(np.float64)) / deviation
    except ValueError:
        # They broadcast with the value only, along different axes.
        distance = np.abs(mean.astype(np.float64)).max(initial=0) / deviation.min(initial=np.inf)
    return bool(np.max(distance, initial=0) > most)
