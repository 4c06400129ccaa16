"""SmoothQuant: large activations, which are hard to quantize, are scaled down, and the weights scaled up instead.

Xiao et al., 2023 (arXiv:2211.10438): one scale holds for all channels of an activation, so that a channel with large
values leaves the others few levels. With s_j = max|x_j|^a / max|W_j|^(1-a) the inputs x_j / s_j are more alike, and the
weights W_j s_j less. The paper takes one a for a model. Here each product has its own a, with which its outputs change
least, and is not scaled if the gain is small.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triune.compression.moments import Moments
from triune.compression.scaling import Scaling, best_of

_LEVELS: Final = 255
_LEAST_GAIN: Final = 0.1
"""A scaling must remove at least this fraction of the error, because it costs a multiplication of the activations in
each run.
"""


def smooth(
    weights: Sequence[NDArray[Any]], moments: Moments, rounded: Callable[[NDArray[Any]], NDArray[Any]]
) -> Scaling:
    """Find the scales of the common inputs of some matrices [out, in], if inputs and weights are quantized to 8 bits.

    The squared error of the outputs is estimated as a sum of two errors. That of the rounded weights is computed on
    the samples. That of the rounded inputs is n d^2 / 12 times the sum of the squares of the weights, for n rows of
    inputs whose rounding errors are evenly spread over a step d.

    Args:
        weights: the matrices.
        moments: the moments of their inputs.
        rounded: quantizes and dequantizes a matrix.
    """
    largest = np.maximum(moments.high, -moments.low)
    heaviest = np.max([np.abs(each).max(axis=0) for each in weights], axis=0).astype(np.float32)

    def scales_of(exponent: float) -> NDArray[np.float32]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return largest**exponent / heaviest ** (1 - exponent)

    def error_of(scales: NDArray[np.float32]) -> float:
        low, high = float((moments.low / scales).min()), float((moments.high / scales).max())
        step = (high - low) / _LEVELS
        scaled = [each * scales for each in weights]
        of_inputs = moments.count * step * step / 12 * sum(float(np.vdot(each, each)) for each in scaled)
        of_weights = sum(
            moments.error(rounded(each) / scales - weight) for each, weight in zip(scaled, weights, strict=True)
        )
        return of_inputs + of_weights

    found = best_of(scales_of, error_of, weights, moments)
    if found.after > (1 - _LEAST_GAIN) * found.before:
        return Scaling(np.ones_like(found.scales), 0.0, found.before, found.before)
    return found
