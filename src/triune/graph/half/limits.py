"""The limits of fp16."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_HALF = np.finfo(np.float16)

LARGEST = float(_HALF.max)
"""65504."""

SMALLEST_NORMAL = float(_HALF.smallest_normal)
"""6.1e-5: below it numbers lose digits, and below 6e-8 they are 0."""

SMALLEST_INVERTED = 1 / LARGEST
"""1.5e-5: the inverse of a smaller number is infinite."""

_BLOCK = 1 << 20


def sizes_within(array: NDArray[Any]) -> tuple[float, float] | None:
    """The smallest and the largest absolute value, ignoring 0, infinity and NaN; None where no other value is left."""
    least, most = np.inf, 0.0
    flat = array.reshape(-1)
    # The array is read in parts, since it may be as large as a model's weights.
    for start in range(0, flat.size, _BLOCK):
        sizes = np.abs(flat[start : start + _BLOCK])
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        if sizes.size:
            least, most = min(least, float(sizes.min())), max(most, float(sizes.max()))
    return (least, most) if most else None
