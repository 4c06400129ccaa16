"""The difference between two results for the same output."""

from dataclasses import dataclass

import numpy as np

from triune.core.datatypes import Array


@dataclass(frozen=True, slots=True)
class Difference:
    """The absolute differences between the elements of two arrays, where both are finite.

    Attributes:
        largest: the largest absolute difference.
        mean: the mean absolute difference.
    """

    largest: float
    mean: float

    def times(self, factor: float) -> "Difference":
        """The difference multiplied by a factor."""
        return Difference(self.largest * factor, self.mean * factor)

    def maximum(self, other: "Difference") -> "Difference":
        """The larger one of the two `largest`, and the larger one of the two `mean`."""
        return Difference(max(self.largest, other.largest), max(self.mean, other.mean))


def difference_of(one: Array, other: Array) -> Difference:
    """The difference between two arrays; 0 if their shapes differ, or if they are empty or not numeric."""
    if one.shape != other.shape or one.dtype.kind not in "biufV" or not one.size:
        return Difference(0.0, 0.0)
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
    difference = difference[np.isfinite(difference)]
    return Difference(float(np.max(difference, initial=0.0)), float(np.sum(difference)) / one.size)
