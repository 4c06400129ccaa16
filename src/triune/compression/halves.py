"""Floats of 16 bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.compression.options import WeightForm


def half_form(weight: NDArray[Any]) -> WeightForm:
    """Of the two forms of 16 bits the one that loses less: FP16, unless weights are beyond its range."""
    most = np.maximum(weight.max(initial=0), -weight.min(initial=0))
    return WeightForm.FP16 if most <= np.finfo(np.float16).max else WeightForm.BF16
