"""AWQ: input channels with large activations are scaled up before weights are rounded, so that they lose less.

Lin et al., 2024 (arXiv:2306.00978): W x = (W diag(s)) (diag(s)^-1 x) with s = mean(|x|)^a, for the a of a grid with
which the outputs change least. The paper measures outputs; with the second moments H of the inputs their change is
trace(dW H dW^T), dW = Q(W diag(s)) diag(s)^-1 - W, exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triune.compression.moments import Moments

_STEPS: Final = 20
"""Exponents from 0 on in steps of 1/20, as in the authors' code."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the inputs of some matrices are divided by, and their weights multiplied by.

    Attributes:
        scales: fp32 [in], above 0; all 1 if no scaling is better than none.
        exponent: a; 0 for none.
        before: the error of the outputs without it, relative to their size.
        after: the error with it.
    """

    scales: NDArray[np.float32]
    exponent: float
    before: float
    after: float


def awq(weights: Sequence[NDArray[Any]], moments: Moments, rounded: Callable[[NDArray[Any]], NDArray[Any]]) -> Scaling:
    """Find the scales of the inputs that some matrices [out, in] share.

    Args:
        weights: the matrices.
        moments: of their inputs.
        rounded: what a matrix is after it was quantized and dequantized.
    """
    ones = np.ones(weights[0].shape[1], np.float32)
    size = sum(moments.error(each) for each in weights)
    if not moments.count or not size > 0:
        return Scaling(ones, 0.0, 0.0, 0.0)
    mean = (moments.sizes / moments.count).astype(np.float32)
    # Channels that are always 0 keep their weights.
    mean = np.where(mean > 0, mean, 1)

    def error_of(scales: NDArray[np.float32]) -> float:
        return sum(moments.error(rounded(each * scales) / scales - each) for each in weights) / size

    best = Scaling(ones, 0.0, error_of(ones), error_of(ones))
    for step in range(1, _STEPS):
        exponent = step / _STEPS
        scales = mean**exponent
        # The mean of the largest and the smallest is 1: the scales of weights stay near what they were.
        scales = np.clip(scales / np.sqrt(scales.max() * scales.min()), 1e-4, 1e4).astype(np.float32)
        error = error_of(scales)
        if error < best.after:
            best = Scaling(scales, exponent, best.before, error)
    return best
