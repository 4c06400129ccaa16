"""Lowering of BatchNormalization, InstanceNormalization and LayerNormalization."""

from collections.abc import Mapping, Sequence

import numpy as np

from triune.graph.axes import positive
from triune.graph.conversion.context import Lowering, NodeContext
from triune.graph.conversion.scope import V


def batch_norm(c: NodeContext[V]) -> None:
    """BatchNormalization: (x - mean) / sqrt(variance + epsilon) * scale + bias, in each channel."""
    b, x = c.builder, c.input(0)
    epsilon = epsilon_of(c)
    if c.attributes.get("training_mode", 0):
        _train_batch_norm(c, x, epsilon)
        return
    bias, mean = (_per_channel(c, c.input(index), x) for index in (2, 3))
    factor = _per_channel(c, _factor(c, x, epsilon), x)
    normal = b.elementwise("Mul", b.elementwise("Sub", x, mean), factor)
    c.give(b.elementwise("Add", normal, bias))


def epsilon_of(c: NodeContext[V]) -> float:
    """The node's epsilon, which is added to the variance."""
    return float(c.attributes.get("epsilon", 1e-5))


def _factor(c: NodeContext[V], x: V, epsilon: float) -> V:
    """`scale / sqrt(variance + epsilon)`, a constant if scale and variance are."""
    b, scale, variance = c.builder, c.constant(1), c.constant(4)
    if scale is not None and variance is not None:
        return b.constant((scale / np.sqrt(variance.astype(np.float64) + epsilon)).astype(b.dtype(x)))
    deviation = b.elementwise("Sqrt", b.add(c.input(4), epsilon))
    return b.div(b.cast(c.input(1), b.dtype(deviation)), deviation)


def _train_batch_norm(c: NodeContext[V], x: V, epsilon: float) -> None:
    """BatchNormalization in training mode.

    It normalizes by the mean and variance of the batch. Further outputs are the new running mean and variance, running
    * momentum + batch's * (1 - momentum).
    """
    b = c.builder
    axes = [axis for axis in range(b.rank(x)) if axis != 1]
    normal, mean, variance, _ = _normalize(c, x, axes, epsilon)
    _scale(c, normal, x)
    momentum = c.attributes.get("momentum", 0.9)
    for index, found in enumerate((mean, variance), start=1):
        if not c.wants(index):
            continue
        before = c.input(index + 2)
        moved = b.cast(b.squeeze(found, axes), b.dtype(before))
        c.give(b.add(b.mul(before, momentum), b.mul(moved, 1 - momentum)), index)


def _scale(c: NodeContext[V], normal: V, x: V) -> None:
    """Write the node's output, normal * scale + bias, with scale and bias as inputs 1 and 2."""
    b = c.builder
    scale, bias = (_per_channel(c, c.input(index), x) for index in (1, 2))
    c.give(b.elementwise("Add", b.elementwise("Mul", normal, scale), bias))


def _per_channel(c: NodeContext[V], value: V, x: V) -> V:
    """Reshape a vector with an element for each channel so that it broadcasts along axis 1 of `x`."""
    return c.builder.unsqueeze(c.builder.cast(value, c.builder.dtype(x)), range(1, c.builder.rank(x) - 1))


def instance_norm(c: NodeContext[V]) -> None:
    """InstanceNormalization: (x - mean) / sqrt(variance + epsilon) * scale + bias, in each channel of each image."""
    x = c.input(0)
    normal, *_ = _normalize(c, x, range(2, c.builder.rank(x)), epsilon_of(c))
    _scale(c, normal, x)


def layer_norm(c: NodeContext[V]) -> None:
    """LayerNormalization over the axes from `axis` on. Mean and 1 / standard deviation are optional outputs."""
    b, x = c.builder, c.input(0)
    normal, mean, _, inverse = _normalize(c, x, layer_axes(c, x), epsilon_of(c))
    result = b.elementwise("Mul", normal, c.input(1))
    c.give(b.elementwise("Add", result, c.input(2)) if c.has(2) else result)
    c.give(mean, 1)
    c.give(inverse, 2)


def layer_axes(c: NodeContext[V], x: V) -> list[int]:
    """The axes over which LayerNormalization takes the mean: those from `axis` on."""
    rank = c.builder.rank(x)
    return list(range(positive(int(c.attributes.get("axis", -1)), rank), rank))


def _normalize(c: NodeContext[V], x: V, axes: Sequence[int], epsilon: float) -> tuple[V, V, V, V]:
    """Compute (x - mean) / sqrt(variance + epsilon), the mean, the variance and 1 / sqrt(variance + epsilon).

    The first has the type of `x`, the others the type of `Builder.summable(x)`.
    """
    b, dtype = c.builder, c.builder.dtype(x)
    x = b.summable(x)
    mean = b.reduce("ReduceMean", x, axes, keepdims=True)
    centered = b.sub(x, mean)
    variance = b.reduce("ReduceMean", b.mul(centered, centered), axes, keepdims=True)
    inverse = b.inverse_root(b.add(variance, epsilon))
    return b.cast(b.mul(centered, inverse), dtype), mean, variance, inverse


TABLE: Mapping[str, Lowering] = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
}
