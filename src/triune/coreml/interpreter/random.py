"""Random numbers. For the same seed they are the same each time, but they are not the numbers of Apple's Core ML."""

from typing import Any

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreml.interpreter.activation import softmax
from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array


def random_bernoulli(shape: Array, prob: Any, seed: Any) -> Array:
    """Draw 1 with the probability `prob`, else 0."""
    return (_generator(seed).random(_sizes(shape)) < float(prob)).astype(np.float32)


def random_categorical(x: Array, mode: str, size: Any, seed: Any) -> Array:
    """Draw `size` indices for each row along the last axis, whose elements are logits or probabilities.

    Raises:
        UnsupportedError: the mode is not known.
    """
    if mode not in ("logits", "probs"):
        raise UnsupportedError(f"there is no mode '{mode}'")
    weights = softmax(x, -1) if mode == "logits" else x / np.sum(x, axis=-1, keepdims=True)
    levels = np.cumsum(weights.astype(np.float64), axis=-1)
    draws = _generator(seed).random((*x.shape[:-1], int(size)))
    places = np.sum(draws[..., None] >= levels[..., None, :], axis=-1)
    return np.minimum(places, x.shape[-1] - 1).astype(np.float32)


def random_normal(shape: Array, mean: Any, stddev: Any, seed: Any) -> Array:
    """Draw from the normal distribution."""
    return _generator(seed).normal(float(mean), float(stddev), _sizes(shape)).astype(np.float32)


def random_uniform(shape: Array, low: Any, high: Any, seed: Any) -> Array:
    """Draw from the uniform distribution on [low, high)."""
    return _generator(seed).uniform(float(low), float(high), _sizes(shape)).astype(np.float32)


def _generator(seed: Any) -> np.random.Generator:
    return np.random.default_rng(None if int(seed) < 0 else int(seed))


def _sizes(shape: Array) -> tuple[int, ...]:
    return tuple(int(size) for size in np.atleast_1d(shape))


FAMILY: Family = {
    "random_bernoulli": random_bernoulli,
    "random_categorical": random_categorical,
    "random_normal": random_normal,
    "random_uniform": random_uniform,
}
