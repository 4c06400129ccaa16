"""AWQ: input channels with large activations are scaled up before weights are rounded, so that these weights lose less
precision.

Lin et al., 2024 (arXiv:2306.00978): W x = (W diag(s)) (diag(s)^-1 x) with s = mean(|x|)^a, for the a of a grid with
which the outputs change least. The paper measures outputs; with the second moments H of the inputs their change is
trace(dW H dW^T), dW = Q(W diag(s)) diag(s)^-1 - W, exactly.
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
