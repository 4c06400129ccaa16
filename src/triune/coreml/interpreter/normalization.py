"""Normalizations."""

from typing import Any

import numpy as np

from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array


def batch_norm(x: Array, mean: Array, variance: Array, gamma: Array | None, beta: Array | None, epsilon: Any) -> Array:
    """Compute gamma * (x - mean) / sqrt(variance + epsilon) + beta; x is (n, C, ...), the others are (C,)."""
    normal = (x - _channels(mean, x)) / np.sqrt(_channels(variance, x) + np.asarray(epsilon, x.dtype))
    return _scaled(normal, gamma, beta)


def instance_norm(x: Array, gamma: Array | None, beta: Array | None, epsilon: Any) -> Array:
    """Compute `batch_norm` with the mean and variance over each channel of each sample."""
    axes = tuple(range(2, x.ndim))
    return _scaled(_normalized(x, axes, epsilon), gamma, beta)


def l2_norm(x: Array, epsilon: Any) -> Array:
    """Compute x / sqrt(s + epsilon), where s is the sum of x^2 over the last three dimensions."""
    total = np.sum(np.square(x), axis=(-3, -2, -1), keepdims=True)
    return x / np.sqrt(total + np.asarray(epsilon, x.dtype))


def layer_norm(x: Array, axes: Array | None, gamma: Array | None, beta: Array | None, epsilon: Any) -> Array:
    """Compute `batch_norm` with mean and variance over `axes`; gamma and beta have the sizes of these axes."""
    chosen = sorted(range(x.ndim) if axes is None else {int(axis) % x.ndim for axis in axes})
    normal = _normalized(x, tuple(chosen), epsilon)
    shape = [size if axis in chosen else 1 for axis, size in enumerate(x.shape)]
    if gamma is not None:
        normal = normal * gamma.reshape(shape)
    return normal if beta is None else normal + beta.reshape(shape)


def local_response_norm(x: Array, size: Any, alpha: Any, beta: Any, k: Any) -> Array:
    """Compute x / (k + alpha / size * s)^beta, where s is the sum of x^2 over `size` neighbouring channels.

    The channels are the third dimension from the end. MIL's reference has them second, in (n, C, ...), but in
    coremltools' tests for the shape (1, 3, 2) Core ML's results show no neighbours.
    """
    size, axis = int(size), x.ndim - 3
    before = size // 2
    widths = [(0, 0)] * x.ndim
    widths[axis] = (before, size - 1 - before)
    squares = np.pad(np.square(x), widths)
    total = np.zeros_like(x)
    for offset in range(size):
        total += np.take(squares, range(offset, offset + x.shape[axis]), axis)
    return (x / (k + alpha / size * total) ** beta).astype(x.dtype)


def _normalized(x: Array, axes: tuple[int, ...], epsilon: Any) -> Array:
    centered = x - np.mean(x, axis=axes, keepdims=True)
    variance = np.mean(np.square(centered), axis=axes, keepdims=True)
    return centered / np.sqrt(variance + np.asarray(epsilon, x.dtype))


def _scaled(x: Array, gamma: Array | None, beta: Array | None) -> Array:
    if gamma is not None:
        x = x * _channels(gamma, x)
    return x if beta is None else x + _channels(beta, x)


def _channels(values: Array, x: Array) -> Array:
    return values.reshape(-1, *(1,) * (x.ndim - 2))


FAMILY: Family = {
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "l2_norm": l2_norm,
    "layer_norm": layer_norm,
    "local_response_norm": local_response_norm,
}
