"""AWQ: the weights of input channels with large activations are scaled up before they are rounded, so that they lose
less precision.

Lin et al., 2024 (arXiv:2306.00978): W x = (W diag(s)) (diag(s)^-1 x) with s = mean(|x|)^a. Of a grid of
exponents a, the one with which the outputs change least is taken. The paper measures outputs. Here their change is
computed from the second moments H of the inputs, exactly: trace(dW H dW^T), where dW = Q(W diag(s)) diag(s)^-1 - W.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.compression.moments import Moments
from triune.compression.scaling import Scaling, best_of


def awq(weights: Sequence[NDArray[Any]], moments: Moments, rounded: Callable[[NDArray[Any]], NDArray[Any]]) -> Scaling:
    """Find the scales of the inputs that some matrices [out, in] share.

    Args:
        weights: the matrices.
        moments: the moments of their inputs.
        rounded: a function that quantizes a matrix and dequantizes it again.
    """
    mean = (moments.sizes / max(moments.count, 1)).astype(np.float32)

    def error_of(scales: NDArray[np.float32]) -> float:
        return sum(moments.error(rounded(each * scales) / scales - each) for each in weights)

    return best_of(lambda exponent: mean**exponent, error_of, weights, moments)
