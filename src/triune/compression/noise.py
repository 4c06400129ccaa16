"""The noise that quantization adds to weights."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 20
"""How many elements are compared at once, in fp64."""


def sqnr_db(values: NDArray[Any], other: NDArray[Any]) -> float:
    """The signal-to-quantization-noise ratio, 10 log10(sum x^2 / sum (x - y)^2), in dB; infinite if nothing differs."""
    one, two = values.reshape(-1), other.reshape(-1)
    signal = noise = 0.0
    for begin in range(0, one.size, _AT_ONCE):
        x = one[begin : begin + _AT_ONCE].astype(np.float64)
        difference = x - two[begin : begin + _AT_ONCE].astype(np.float64)
        signal += float(x @ x)
        noise += float(difference @ difference)
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")
