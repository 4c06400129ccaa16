"""The choice between the two floating-point formats of 16 bits, FP16 and BF16."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.compression.options import WeightForm


def half_form(weight: NDArray[Any]) -> WeightForm:
    """The form of 16 bits that loses less: FP16, or BF16 if weights are beyond the range of FP16."""
    most = np.maximum(weight.max(initial=0), -weight.min(initial=0))
    return WeightForm.FP16 if most <= np.finfo(np.float16).max else WeightForm.BF16
