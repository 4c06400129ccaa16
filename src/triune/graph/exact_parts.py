"""Splits a matrix of integers into parts whose sums of products are exact in fp32."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MOST_EXACT: Final = 1 << 24
"""The largest integer up to which fp32 has all integers."""

_STEP: Final = 64
"""The number of rows whose sums are computed together: 64 products of 8-bit integers, 64 * 255 * 255, stay below
2^24.
"""


def exact_parts(matrix: NDArray[np.int16], largest: int) -> list[slice]:
    """Divide the rows of a matrix into the longest parts for which sums of products are exact in fp32.

    Args:
        matrix: [in, out], of integers from -255 to 255.
        largest: the largest distance from 0 of the numbers that rows are multiplied by; up to 255.

    Returns:
        slices of rows, in order; none for a matrix without rows.
    """
    starts = np.arange(0, len(matrix), _STEP)
    if not len(starts) or not matrix.shape[1]:
        return [slice(0, len(matrix))] if len(starts) else []
    sums = np.add.reduceat(np.abs(matrix), starts, axis=0, dtype=np.int64) * largest
    parts: list[slice] = []
    begin, running = 0, np.zeros(matrix.shape[1], np.int64)
    for at, each in enumerate(sums):
        running = running + each
        if running.max() > MOST_EXACT:
            parts.append(slice(begin, int(starts[at])))
            begin, running = int(starts[at]), each
    return [*parts, slice(begin, len(matrix))]
