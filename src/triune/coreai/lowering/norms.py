"""Normalizations."""

from collections.abc import Sequence

import numpy as np

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.values import axes, cast, constant, dtype_of, like, rank_of
from triune.graph.axes import positive


def _batch_norm(c: Context) -> None:
    """Y = (x - mean) / sqrt(variance + epsilon) * scale + bias, in each channel."""
    x = c.input(0)
    epsilon = c.attributes.get("epsilon", 1e-5)
    if c.attributes.get("training_mode", 0):
        _train_batch_norm(c, x, epsilon)
        return
    bias, mean = (_per_channel(c.input(index), x) for index in (2, 3))
    factor = _per_channel(_factor(c, x, epsilon), x)
    normal = ops.broadcasting_mul(ops.broadcasting_sub(x, mean), factor)
    c.give(ops.broadcasting_add(normal, bias))


def _factor(c: Context, x: Value, epsilon: float) -> Value:
    """Scale / sqrt(variance + epsilon), computed now where both are known."""
    scale, variance = c.constant(1), c.constant(4)
    if scale is not None and variance is not None:
        return constant((scale / np.sqrt(variance.astype(np.float64) + epsilon)).astype(dtype_of(x)))
    deviation = ops.sqrt(ops.broadcasting_add(c.input(4), like(c.input(4), epsilon)))
    return ops.divide(cast(c.input(1), dtype_of(deviation)), deviation)


def _train_batch_norm(c: Context, x: Value, epsilon: float) -> None:
    """By the batch's own mean and variance; the running ones move towards them."""
    places = [axis for axis in range(rank_of(x)) if axis != 1]
    normal, mean, variance = _normalize(x, places, epsilon)
    scale, bias = (_per_channel(c.input(index), x) for index in (1, 2))
    c.give(ops.broadcasting_add(ops.broadcasting_mul(normal, scale), bias))
    momentum = c.attributes.get("momentum", 0.9)
    for index, found in enumerate((mean, variance), start=1):
        if not c.wants(index):
            continue
        before = c.input(index + 2)
        moved = cast(ops.shrink_dims(found, axes(places)), dtype_of(before))
        kept = ops.broadcasting_mul(before, like(before, momentum))
        c.give(ops.add(kept, ops.broadcasting_mul(moved, like(moved, 1 - momentum))), index)


def _per_channel(value: Value, x: Value) -> Value:
    """A vector with an element for each channel, the second dimension of `x`."""
    after = max(rank_of(x) - 2, 0)
    value = cast(value, dtype_of(x))
    return ops.expand_dims(value, axes(range(1, 1 + after))) if after else value


def _instance_norm(c: Context) -> None:
    """As batch normalization, by the mean and variance of each image's channel."""
    x = c.input(0)
    normal, _, _ = _normalize(x, list(range(2, rank_of(x))), c.attributes.get("epsilon", 1e-5))
    scale, bias = (_per_channel(c.input(index), x) for index in (1, 2))
    c.give(ops.broadcasting_add(ops.broadcasting_mul(normal, scale), bias))


def _layer_norm(c: Context) -> None:
    x = c.input(0)
    epsilon = c.attributes.get("epsilon", 1e-5)
    places = list(range(positive(int(c.attributes.get("axis", -1)), rank_of(x)), rank_of(x)))
    normal, mean, variance = _normalize(x, places, epsilon)
    result = ops.broadcasting_mul(normal, c.input(1))
    c.give(ops.broadcasting_add(result, c.input(2)) if c.has(2) else result)
    c.give(mean, 1)
    if c.wants(2):
        c.give(ops.rsqrt(ops.broadcasting_add(variance, like(variance, epsilon))), 2)


def _normalize(x: Value, places: Sequence[int], epsilon: float) -> tuple[Value, Value, Value]:
    """`x` of mean 0 and variance 1; the mean and the variance in fp32: in fp16 the squares soon are infinite."""
    dtype, x = dtype_of(x), cast(x, np.float32)
    mean = ops.reduce_mean(x, axes(places))
    centered = ops.broadcasting_sub(x, mean)
    variance = ops.reduce_mean(ops.mul(centered, centered), axes(places))
    inverse = ops.rsqrt(ops.broadcasting_add(variance, like(x, epsilon)))
    return cast(ops.broadcasting_mul(centered, inverse), dtype), mean, variance


TABLE: dict[str, Lowering] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
}
