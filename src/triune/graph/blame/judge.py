"""Judge whether results are wrong, for inputs whose outputs may be small: by the error relative to the largest element
of the output itself.
"""

from collections.abc import Mapping

import numpy as np

from triune.core.datatypes import Array

_FLOOR = 2.0**-20
"""Errors are judged relative to the largest element of an output, or to this number if that element is smaller: outputs
of the program are fp16, which has few bits for such numbers.
"""

_FEW = 0.01
"""The share of elements of an integer or boolean output that may differ, since rounding to fp16 may change a
comparison.
"""


def error_of(expected: Array, actual: Array, tolerance: float, uncertain: Array | None = None) -> float:
    """The largest error of a result, relative to what is allowed: above 1 it is wrong.

    Args:
        expected: the right result. Elements that are infinite or NaN there are not compared.
        actual: the result to judge, of the same number of elements.
        tolerance: the allowed error, relative to the largest expected element.
        uncertain: for each element, by how much another result, equally right, may differ.

    Returns:
        the ratio. For integers and booleans it is 0 if at most one in a hundred elements differs (`_FEW`), else
        infinite.
    """
    one, other = expected.reshape(-1), actual.reshape(-1)
    if one.size != other.size:
        return float("inf")
    if not one.size or one.dtype.kind not in "biufV":
        return 0.0
    if one.dtype.kind in "biu":
        return float("inf") if np.count_nonzero(one != other) > _FEW * one.size else 0.0
    one, other = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(one)
    if not finite.any():
        return 0.0
    one, other = one[finite], other[finite]
    allowed = np.full(one.shape, tolerance * max(float(np.abs(one).max()), _FLOOR))
    if uncertain is not None:
        allowed = allowed + uncertain.reshape(-1)[finite]
    with np.errstate(all="ignore"):
        ratio = np.abs(one - other) / allowed
    ratio[np.isnan(ratio)] = np.inf
    return float(ratio.max())


def errors_of(
    expected: Mapping[str, Array], actual: Mapping[str, Array], tolerance: float, uncertain: Mapping[str, Array]
) -> dict[str, float]:
    """The errors (`error_of`) of the outputs that are in both mappings, by name."""
    return {
        name: error_of(array, actual[name], tolerance, uncertain.get(name))
        for name, array in expected.items()
        if name in actual
    }
