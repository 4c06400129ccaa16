"""Scales for products: the inputs are divided by them and the weights multiplied by them, so that the product stays the
same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triune.compression.moments import Moments

_STEPS: Final = 20
"""How many exponents of the scales are tried: 1/20, 2/20, ... 1, as in AWQ's own code."""

_LARGEST: Final = 1e4
"""The limit of scales, and of their inverses, so that scaled numbers stay within fp16."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """The scales of the inputs of some matrices: the inputs are divided by them, and the weights multiplied.

    Attributes:
        scales: fp32 [in], above 0; all 1 if no scaling is better than none.
        exponent: the exponent in the scales' formula; 0 for no scaling.
        before: the error of the outputs if weights are compressed without scaling: the sum of the squared errors,
            divided by the sum of the squared outputs.
        after: the same error with scaling.
    """

    scales: NDArray[np.float32]
    exponent: float
    before: float
    after: float


def best_of(
    scales_of: Callable[[float], NDArray[np.float32]],
    error_of: Callable[[NDArray[np.float32]], float],
    weights: Sequence[NDArray[Any]],
    moments: Moments,
) -> Scaling:
    """Try exponents from 1 / _STEPS to 1, and keep the scales whose compressed weights change the outputs least.

    In AWQ a channel's scale is its mean input to the power of the exponent.

    Args:
        scales_of: the scales for an exponent above 0 and up to 1; channels where a scale is 0 or NaN get 1.
        error_of: the sum of the squared errors of the outputs if weights are compressed with these scales.
        weights: the matrices [out, in].
        moments: the second moments of the matrices' inputs.
    """
    ones = np.ones(weights[0].shape[1], np.float32)
    size = sum(moments.error(each) for each in weights)
    if not moments.count or not 0 < size < np.inf:
        return Scaling(ones, 0.0, 0.0, 0.0)
    none = error_of(ones) / size
    best = Scaling(ones, 0.0, none, none)
    for step in range(1, _STEPS + 1):
        scales = scales_of(step / _STEPS)
        is_usable = np.isfinite(scales) & (scales > 0)
        if not is_usable.any():
            continue
        # Divide the scales by the geometric mean of the largest and the smallest one: then the weights, which are
        # multiplied by them, keep about their size.
        middle = np.sqrt(scales[is_usable].max()) * np.sqrt(scales[is_usable].min())
        scales = np.where(is_usable, scales / middle, 1)
        scales = np.clip(scales, 1 / _LARGEST, _LARGEST).astype(np.float32)
        error = error_of(scales) / size
        if error < best.after:
            best = Scaling(scales, step / _STEPS, none, error)
    return best
