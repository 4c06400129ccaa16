"""The limits of fp16."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_HALF = np.finfo(np.float16)

LARGEST = float(_HALF.max)
"""The largest finite number of fp16: 65504."""

SMALLEST_NORMAL = float(_HALF.smallest_normal)
"""The smallest normal number of fp16: 6.1e-5. Smaller numbers are subnormal, with fewer significant bits, and below
3e-8 they are rounded to 0.
"""

SMALLEST_INVERTED = 1 / LARGEST
"""The smallest number whose inverse is finite in fp16: 1.5e-5."""

_BLOCK = 1 << 20


def sizes_within(array: NDArray[Any]) -> tuple[float, float] | None:
    """The smallest and the largest absolute value, ignoring 0, infinity and NaN; None if there is no other value."""
    least, most = np.inf, 0.0
    flat = array.reshape(-1)
    # Read the array in blocks: the temporary arrays for a whole large weight would take as much memory as the weight.
    for start in range(0, flat.size, _BLOCK):
        sizes = np.abs(flat[start : start + _BLOCK])
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        if sizes.size:
            least, most = min(least, float(sizes.min())), max(most, float(sizes.max()))
    return (least, most) if most else None
