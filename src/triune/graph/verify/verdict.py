"""Judge each output: compare the results of a model with those of its conversion."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from triune.core.datatypes import Array
from triune.graph.audit import InputSet
from triune.graph.verify.difference import Difference, difference_of
from triune.graph.verify.samples import YOURS

_FLOOR = 1e-2
"""Outputs may differ by the tolerance times their largest element, but at least by the tolerance times this (times the
largest input, if that is below 1): rounding explains so much.
"""

_FEW = 0.01
"""If at most this share of an output's integers differs, the output is not called wrong by default: rounding to fp16
may have changed the result of a comparison.
"""


class Verdict(Enum):
    """Whether an output of the conversion is right."""

    RIGHT = "right"
    WRONG = "WRONG"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class OutputVerdict:
    """How far an output of the conversion is from that of the source, the model.

    Attributes:
        name: the output's name in the source.
        shape: the shape of the result that differs most.
        error: the largest absolute difference in that result; infinite if only one of the two is NaN.
        largest: the largest absolute value of the source's result.
        allowed: the largest error that is allowed.
        inputs: the name of the set of inputs with which the result differs most.
        share: the part of the elements whose error is larger than allowed.
        is_constant: whether all elements of the source's results are equal for all sets, for instance 0, so that the
            comparison proves next to nothing.
        is_random: whether two runs of the source on the same inputs differ by more than its precision explains, so that
            no result is right or wrong.
        computed: the shape of the conversion's result, if the two shapes differ; else None. The other figures then say
            nothing.
        is_excused: whether the shapes may differ, since a comparison of numbers that fp16 rounds decides them.
    """

    name: str
    shape: tuple[int, ...]
    error: float
    largest: float
    allowed: float
    inputs: str
    share: float = 0.0
    is_constant: bool = False
    is_random: bool = False
    computed: tuple[int, ...] | None = None
    is_excused: bool = False

    @property
    def verdict(self) -> Verdict:
        """WRONG if the error is larger than allowed or the shape is another one; UNKNOWN if the output is random or
        constant, or its other shape is excused; else RIGHT.
        """
        if self.is_random or self.is_excused:
            return Verdict.UNKNOWN
        if not self.error <= self.allowed:
            return Verdict.WRONG
        return Verdict.UNKNOWN if self.is_constant else Verdict.RIGHT

    @property
    def is_in_few_integers(self) -> bool:
        """Whether only integers or booleans differ, at most one in a hundred of them."""
        return not self.allowed and self.share <= _FEW and self.computed is None

    @property
    def described(self) -> str:
        """What differs in the output, and how far, for messages."""
        inputs = "your inputs" if self.inputs == YOURS else f"generated {self.inputs}"
        if self.computed is not None:
            return (
                f"output '{self.name}' has the shape {list(self.computed)} on {inputs}, where the source's has "
                f"{list(self.shape)}"
            )
        if not self.allowed:
            return f"{self.share:.2%} of the elements of output '{self.name}' differ on {inputs}"
        return (
            f"output '{self.name}' is off by {self.error:.3g} on {inputs}, where {self.allowed:.3g} is "
            f"allowed, {self.share:.2%} of its elements by more than that; the largest is {self.largest:.3g}"
        )


class Answers:
    """Compares the results for several sets of inputs, and keeps the worst verdict of each output."""

    def __init__(self, tolerance: float) -> None:
        """Args:
        tolerance: the allowed error of floats, relative to the largest value of their output.
        """
        self._tolerance = tolerance
        self._worst: dict[str, OutputVerdict] = {}
        self._values: dict[str, list[str]] = {}
        self._random: set[str] = set()

    def add_again(self, inputs: InputSet, expected: Mapping[str, Array], again: Mapping[str, Array]) -> None:
        """Compare two runs of the source on the same inputs, and mark the outputs that differ as random."""
        for name, array in expected.items():
            if self._compared(name, inputs, array, again[name]).verdict is Verdict.WRONG:
                self._random.add(name)

    def add(
        self,
        inputs: InputSet,
        expected: Mapping[str, Array],
        actual: Mapping[str, Array],
        uncertainty: Callable[[], Mapping[str, Difference]],
    ) -> bool:
        """Compare the results of the source and the conversion for a set of inputs.

        Args:
            inputs: the set of inputs.
            expected: the source's results, by output.
            actual: the conversion's results, by output.
            uncertainty: returns the uncertainty of each output (`OnnxModel.uncertainty`); called only if an output is
                wrong. An error within it is excused if the mean difference is within it, too.

        Returns:
            whether an output is wrong for this set.
        """
        is_wrong = False
        for name, array in expected.items():
            found = self._compared(name, inputs, array, actual[name])
            if name in self._random:
                found = replace(found, is_random=True)
            elif found.verdict is Verdict.WRONG and np.isfinite(found.error):
                found = _excused(
                    found, difference_of(array, actual[name].reshape(array.shape)).mean, uncertainty().get(name)
                )
            is_wrong = is_wrong or found.verdict is Verdict.WRONG
            worst = self._worst.get(name)
            if worst is None or _severity(found) > _severity(worst):
                self._worst[name] = found
            self._values.setdefault(name, []).extend(_two_values(array))
        return is_wrong

    def verdicts(self) -> Iterator[OutputVerdict]:
        """The worst verdict of each output."""
        for name, worst in self._worst.items():
            is_random = name in self._random
            is_constant = not is_random and len(set(self._values[name])) <= 1
            yield replace(worst, is_constant=is_constant, is_random=is_random)

    def _compared(self, name: str, inputs: InputSet, expected: Array, actual: Array) -> OutputVerdict:
        shape = expected.shape or (1,)
        # A scalar may be a vector of one element, as in Core ML.
        if (actual.shape or (1,)) != shape:
            return OutputVerdict(name, shape, np.inf, 0.0, 0.0, inputs.name, 1.0, computed=actual.shape)
        one, other = expected.reshape(shape), actual.reshape(shape)
        if one.dtype.kind not in "biufV":
            share = float(np.count_nonzero(one != other)) / max(one.size, 1)
            return OutputVerdict(name, shape, np.inf if share else 0.0, 0.0, 0.0, inputs.name, share)
        with np.errstate(all="ignore"):
            # Compare integers before the conversion to fp64, which cannot represent all 64-bit integers. Unequal
            # integers differ by at least 1.
            is_same = (one == other) | ((one != one) & (other != other))
            least = 1.0 if expected.dtype.kind in "biu" else 0.0
            one, other = one.astype(np.float64), other.astype(np.float64)
            difference = np.where(is_same, 0.0, np.maximum(np.abs(one - other), least))
        difference[np.isnan(difference)] = np.inf
        error = float(np.max(difference, initial=0.0))
        largest = float(np.max(np.abs(one), where=np.isfinite(one), initial=0.0))
        is_exact = expected.dtype.kind in "biu"
        allowed = 0.0 if is_exact else self._tolerance * max(largest, _FLOOR * min(inputs.largest, 1.0))
        share = float(np.count_nonzero(difference > allowed)) / max(difference.size, 1)
        return OutputVerdict(name, shape, error, largest, allowed, inputs.name, share)


def _excused(found: OutputVerdict, mean: float, uncertainty: Difference | None) -> OutputVerdict:
    if uncertainty is None or mean > uncertainty.mean + found.allowed:
        return found
    return replace(found, allowed=max(found.allowed, uncertainty.largest))


def _severity(found: OutputVerdict) -> tuple[bool, float]:
    """The key by which verdicts are compared. A wrong verdict is worse than any other; then the larger ratio of error
    to allowed error is worse, or for integers the larger share of wrong elements.
    """
    is_wrong = found.verdict is Verdict.WRONG
    return is_wrong, found.error / found.allowed if found.allowed else found.share


def _two_values(array: Array) -> list[str]:
    """One or two distinct values of an array, as text, where NaN equals NaN and -0.0 equals 0.0."""
    values: list[object] = np.unique(array)[:2].tolist() if array.size else []
    return [str(0 if value == 0 else value) for value in values]
