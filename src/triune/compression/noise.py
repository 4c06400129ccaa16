"""The noise that quantization adds to weights."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def sqnr_db(values: NDArray[Any], other: NDArray[Any]) -> float:
    """The signal to quantization noise ratio, 10 log10(sum x^2 / sum (x - y)^2), in dB; infinite if nothing differs."""
    wide = values.astype(np.float64)
    noise = float(np.sum(np.square(wide - other.astype(np.float64))))
    signal = float(np.sum(np.square(wide)))
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")
