"""Compare two outputs of a program, and describe the largest difference."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.graph.audit.inputs import InputSet

Array: TypeAlias = NDArray[Any]

_FLOOR = 1e-2
"""An output may differ by the tolerance times its largest element. If that element is smaller than this number (times
the largest input, if that is below 1), this number counts instead: rounding explains so much.
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference between an output before and after a step.

    Attributes:
        before: the element before, as text; or the shape or the element type, if those differ.
        after: the element after, or the shape or the element type, as text.
        index: the index of the element; empty for a scalar, or if shape or type differ.
        error: the absolute difference, relative to the largest finite value before; infinite if only one of the two is
            NaN or infinite, if integers differ, or if shape or type differ.
    """

    before: str
    after: str
    index: tuple[int, ...]
    error: float


@dataclass(frozen=True, slots=True)
class Finding:
    """A pass that changed an output.

    Attributes:
        step: the name of the pass.
        output: the name of the output.
        inputs: the name of the set of inputs.
        difference: the largest difference between the output before and after the pass.
    """

    step: str
    output: str
    inputs: str
    difference: Difference

    def __str__(self) -> str:
        """Describe the finding in one line, for the user."""
        where = f" at {list(self.difference.index)}" if self.difference.index else ""
        return (
            f"{self.step} changes output '{self.output}'{where} from {self.difference.before} to "
            f"{self.difference.after} (inputs: {self.inputs})"
        )


def find_difference(
    before: Array, after: Array, tolerance: float, *, largest_input: float = 1.0, may_overflow: bool = False
) -> Difference | None:
    """The difference between an output before and after a step; None if they are equal within `tolerance`.

    Integers, booleans, infinities and NaN must be equal; infinities and NaN of `before` are not compared if
    `may_overflow`. Other floats may differ by `tolerance` times the largest finite value of `before`.

    Args:
        before: the output before the step, which counts as right.
        after: the output after the step.
        tolerance: the allowed relative error of floats.
        largest_input: the largest absolute value of the inputs: if all are tiny, tiny differences count, too.
        may_overflow: whether the program may be infinite or NaN before the step only since numbers within it overflow
            (`InputSet.may_overflow`).
    """
    if before.shape != after.shape:
        return Difference(f"shape {list(before.shape)}", f"shape {list(after.shape)}", (), np.inf)
    if before.dtype != after.dtype:
        return Difference(str(before.dtype), str(after.dtype), (), np.inf)
    if not before.size:
        return None
    is_float = before.dtype.kind not in "biu"
    one, other = (before.astype(np.float64), after.astype(np.float64)) if is_float else (before, after)
    with np.errstate(all="ignore"):
        is_same = (one == other) | ((one != one) & (other != other))
        if is_float:
            scale = max(float(np.max(np.abs(one), where=np.isfinite(one), initial=0.0)), _FLOOR * min(largest_input, 1))
            error = np.where(is_same, 0.0, np.abs(one - other) / (scale or 1.0))
            error[np.isnan(error)] = np.inf
            if may_overflow:
                error[~np.isfinite(one)] = 0.0
        else:
            error = np.where(is_same, 0.0, np.inf)
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    largest = float(error[worst])
    if largest <= tolerance:
        return None
    return Difference(_text(before[worst]), _text(after[worst]), tuple(int(axis) for axis in worst), largest)


def differences(
    step: str, inputs: InputSet, before: Mapping[str, Array], after: Mapping[str, Array], tolerance: float
) -> Iterator[Finding]:
    """Yield a finding for each output that a step changed, or that is missing after it."""
    for name, array in before.items():
        if name not in after:
            yield Finding(step, name, inputs.name, Difference("an output", "no output", (), np.inf))
            continue
        difference = find_difference(
            array, after[name], tolerance, largest_input=inputs.largest, may_overflow=inputs.may_overflow
        )
        if difference is not None:
            yield Finding(step, name, inputs.name, difference)


def _text(value: Any) -> str:
    return str(value) if value.dtype.kind in "biu" else f"{float(value):.9g}"
