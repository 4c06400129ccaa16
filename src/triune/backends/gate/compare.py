"""Compare a unit's outputs with those of `cpu`."""

from collections.abc import Collection, Mapping

import numpy as np

from triune.core.datatypes import Array
from triune.core.verdict import Verdict

_SMALLEST = 1e-3
"""To get a relative error, the difference is divided by the output's largest value, but by at least this number: if all
values are near 0, because the terms of their sums cancel, the differences are rounding errors.
"""

_CLEAR = 0.5
"""A row of scores is clear if its largest score exceeds the second largest by more than this number * the tolerance *
the output's largest value.
"""


def compare(
    expected: Mapping[str, Array],
    found: Mapping[str, Array],
    *,
    precision: str,
    tolerance: float,
    scores: Collection[str] = (),
) -> Verdict:
    """Compare a unit's outputs for one sample with those of `cpu`.

    Args:
        expected: the outputs of `cpu`.
        found: the outputs of the unit, with the same names.
        precision: the floating-point format of the unit's computation.
        tolerance: for an output of floats, the allowed difference divided by the output's largest value; for an output
            of integers, booleans or strings, the fraction of elements that may differ; for rows of scores, the fraction
            of rows that may choose another class.
        scores: the outputs whose last axis has a score for each class.
    """
    largest, relative, excess = 0.0, 0.0, ""
    agreements: list[float] = []
    for name, array in expected.items():
        absolute, error, text = _errors(name, array, found[name], tolerance)
        largest, relative = max(largest, absolute), max(relative, error)
        excess = excess or text
        agreement = _agreement(array, found[name], tolerance) if name in scores else None
        if agreement is not None:
            agreements.append(agreement)
            if not excess and agreement < 1 - tolerance:
                excess = f"output '{name}' chooses another class in {1 - agreement:.0%} of the clear rows"
    return Verdict(
        precision=precision,
        tolerance=tolerance,
        largest=largest,
        relative=relative,
        agreement=min(agreements, default=None),
        excess=excess,
    )


def joined(verdicts: Collection[Verdict]) -> Verdict:
    """Join the verdicts on one or more samples: the result has the largest errors of all, and the first reason for
    exceeding the tolerance.
    """
    first = next((each for each in verdicts if each.excess), next(iter(verdicts)))
    return Verdict(
        precision=first.precision,
        tolerance=first.tolerance,
        largest=max(each.largest for each in verdicts),
        relative=max(each.relative for each in verdicts),
        agreement=min((each.agreement for each in verdicts if each.agreement is not None), default=None),
        excess=first.excess,
        cause=first.cause,
    )


def relative_error(expected: Array, found: Array) -> float:
    """The largest difference of two arrays of floats divided by the largest expected value; infinite if shapes or NaNs
    differ.
    """
    return _difference(expected, found) / max(_largest(expected), _SMALLEST)


def _errors(name: str, expected: Array, found: Array, tolerance: float) -> tuple[float, float, str]:
    """The absolute error of an output, its relative error, and why it exceeds the tolerance ("" if it does not)."""
    difference = _difference(expected, found)
    if _is_float(expected) and expected.shape == found.shape:
        largest = _largest(expected)
        error = difference / max(largest, _SMALLEST)
        text = f"output '{name}' is off by {difference:.3g}, where its largest value is {largest:.3g}"
        return difference, error, text if error > tolerance else ""
    if expected.shape != found.shape:
        return difference, difference, f"output '{name}' has shape {list(found.shape)}, not {list(expected.shape)}"
    part = float(np.count_nonzero(np.asarray(expected != found))) / expected.size if difference > 0 else 0.0
    is_wrong = difference == np.inf or part > tolerance
    return difference, part, f"output '{name}' has other values" if is_wrong else ""


def _is_float(array: Array) -> bool:
    # Count kind "V" as floats, too: it is the kind of bf16, which is a dtype of ml_dtypes, not of numpy.
    return array.dtype.kind in "fV"


def _largest(array: Array) -> float:
    wide = array.astype(np.float64)
    return float(np.max(np.abs(wide), where=np.isfinite(wide), initial=0.0))


def _agreement(expected: Array, found: Array, tolerance: float) -> float | None:
    """The fraction of rows in which both arrays have the same best class, among rows that are clear (`_CLEAR`); None if
    no row is clear.
    """
    if expected.shape != found.shape or expected.ndim == 0 or expected.shape[-1] < 2 or not _is_float(expected):
        return None
    rows = expected.astype(np.float64).reshape(-1, expected.shape[-1])
    others = found.astype(np.float64).reshape(rows.shape)
    best_two = np.partition(rows, -2, axis=-1)[:, -2:]
    is_clear = best_two[:, 1] - best_two[:, 0] > _CLEAR * tolerance * max(_largest(expected), _SMALLEST)
    if not is_clear.any():
        return None
    is_same = rows[is_clear].argmax(axis=-1) == others[is_clear].argmax(axis=-1)
    return int(np.count_nonzero(is_same)) / len(is_same)


def _difference(expected: Array, found: Array) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if expected.size == 0:
        return 0.0
    if expected.dtype == np.object_:
        return 0.0 if bool(np.all(expected == found)) else float("inf")
    theirs, ours = expected.astype(np.float64), found.astype(np.float64)
    # Equal values, including infinities, and NaN on both sides have difference 0. NaN on one side has difference
    # infinity.
    is_same = (theirs == ours) | (np.isnan(theirs) & np.isnan(ours))
    with np.errstate(invalid="ignore"):
        differences = np.where(is_same, 0.0, np.abs(theirs - ours))
    return float(np.nan_to_num(differences, nan=np.inf, posinf=np.inf).max())
