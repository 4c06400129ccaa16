"""The verdict on each output, from the answers of a model and those of its conversion."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InternalError
from triune.graph.audit import InputSet
from triune.graph.verify.difference import Difference, difference_of

_FLOOR = 1e-2
"""Outputs that are all near zero may differ by the tolerance times this, which rounding explains."""


class Verdict(Enum):
    """The findings on an output."""

    RIGHT = "right"
    WRONG = "WRONG"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class OutputVerdict:
    """How far an output of the result is from the source's.

    Attributes:
        name: the source's.
        shape: of the answer that is furthest off.
        error: the largest absolute difference there; infinite where one is no number and the other is.
        largest: the largest absolute value of the source's answer there.
        allowed: how large the error may be there.
        inputs: the name of the set of inputs that it was computed of.
        is_constant: whether the source's answers to all sets have one value only, all zeros for instance, so that they
            tell next to nothing.
    """

    name: str
    shape: tuple[int, ...]
    error: float
    largest: float
    allowed: float
    inputs: str
    is_constant: bool = False

    @property
    def verdict(self) -> Verdict:
        """Wrong beyond what is allowed."""
        if not self.error <= self.allowed:
            return Verdict.WRONG
        return Verdict.UNKNOWN if self.is_constant else Verdict.RIGHT


class Answers:
    """Gathers the answers to several sets of inputs."""

    def __init__(self, tolerance: float) -> None:
        """Args:
        tolerance: how large the error of floats may be, relative to the largest value of their output.
        """
        self._tolerance = tolerance
        self._worst: dict[str, OutputVerdict] = {}
        self._values: dict[str, list[str]] = {}

    def add(
        self,
        inputs: InputSet,
        expected: Mapping[str, Array],
        actual: Mapping[str, Array],
        doubt: Callable[[], Mapping[str, Difference]],
    ) -> None:
        """Compare the answers to a set of inputs.

        Args:
            inputs: the set.
            expected: the source's, by output.
            actual: the result's.
            doubt: how far another right answer may be, by output; called where something is wrong. An error that is
                as large in more elements than `mean` allows is none of those that explain it.

        Raises:
            InternalError: an output is of another shape; scalars are vectors of one element to Core ML.
        """
        for name, array in expected.items():
            found = self._compared(name, inputs, array, actual[name])
            if found.verdict is Verdict.WRONG and np.isfinite(found.error):
                found = _excused(found, difference_of(array, actual[name].reshape(array.shape)).mean, doubt().get(name))
            worst = self._worst.get(name)
            if worst is None or _severity(found) > _severity(worst):
                self._worst[name] = found
            self._values.setdefault(name, []).extend(_two_values(array))

    def verdicts(self) -> Iterator[OutputVerdict]:
        """The worst finding of each output."""
        for name, worst in self._worst.items():
            yield replace(worst, is_constant=len(set(self._values[name])) <= 1)

    def _compared(self, name: str, inputs: InputSet, expected: Array, actual: Array) -> OutputVerdict:
        shape = expected.shape or (1,)
        if (actual.shape or (1,)) != shape:
            raise InternalError(f"output '{name}' is of shape {actual.shape} after the conversion, {shape} before")
        one, other = expected.reshape(shape), actual.reshape(shape)
        if one.dtype.kind not in "biufV":
            error = 0.0 if bool(np.all(one == other)) else np.inf
            return OutputVerdict(name, shape, error, 0.0, 0.0, inputs.name)
        with np.errstate(all="ignore"):
            # Whole numbers are compared as such, and differ by 1 at least: fp64 does not hold all of 64 bits.
            is_same = (one == other) | ((one != one) & (other != other))
            least = 1.0 if expected.dtype.kind in "biu" else 0.0
            one, other = one.astype(np.float64), other.astype(np.float64)
            difference = np.where(is_same, 0.0, np.maximum(np.abs(one - other), least))
        difference[np.isnan(difference)] = np.inf
        error = float(np.max(difference, initial=0.0))
        largest = float(np.max(np.abs(one), where=np.isfinite(one), initial=0.0))
        is_exact = expected.dtype.kind in "biu"
        allowed = 0.0 if is_exact else self._tolerance * max(largest, _FLOOR * min(inputs.largest, 1.0))
        return OutputVerdict(name, shape, error, largest, allowed, inputs.name)


def _excused(found: OutputVerdict, mean: float, doubt: Difference | None) -> OutputVerdict:
    if doubt is None or mean > doubt.mean + found.allowed:
        return found
    return replace(found, allowed=max(found.allowed, doubt.largest))


def _severity(found: OutputVerdict) -> tuple[bool, float]:
    """Wrong answers come first, then the largest errors for what is allowed."""
    is_wrong = found.verdict is Verdict.WRONG
    return is_wrong, found.error / found.allowed if found.allowed else found.error


def _two_values(array: Array) -> list[str]:
    """One or two of its different values, as text: one that is no number is like another, and so is -0.0 to 0.0."""
    values: list[object] = np.unique(array)[:2].tolist() if array.size else []
    return [str(0 if value == 0 else value) for value in values]
