"""Compares the results of two computations of one program."""

from typing import Any

import numpy as np

TOLERANCES = {"float64": 1e-4, "float32": 1e-4, "float16": 3e-3, "bfloat16": 2e-2}
"""Of the largest number of a result, or of 1 where all are smaller."""


def difference(actual: Any, expected: Any) -> str:
    """Describe how two arrays differ; empty if they are equal."""
    if actual.shape != expected.shape:
        return f"shape {actual.shape} for {expected.shape}"
    if actual.dtype != expected.dtype:
        return f"{actual.dtype} for {expected.dtype}"
    tolerance = TOLERANCES.get(expected.dtype.name)
    if tolerance is None:
        is_other = actual != expected
        if not is_other.any():
            return ""
        return f"{is_other.sum()} of {actual.size} differ: {actual[is_other][:3]} for {expected[is_other][:3]}"
    mine, right = actual.astype(np.float64), expected.astype(np.float64)
    is_finite = np.isfinite(right)
    if not np.array_equal(np.where(is_finite, 0, mine), np.where(is_finite, 0, right), equal_nan=True):
        return f"{mine[~is_finite][:3]} for {right[~is_finite][:3]}"
    if not is_finite.any():
        return ""
    scale = max(1.0, float(np.abs(right[is_finite]).max()))
    error = float(np.abs(mine[is_finite] - right[is_finite]).max())
    return "" if error <= tolerance * scale else f"an error of {error:.3g} in numbers up to {scale:.3g}"
