"""Estimates of how long a unit takes for a batch, from the batches that it ran."""

from typing import Final

_WEIGHT: Final = 0.2
"""How much the newest batch counts in a size's mean."""

_NUM_FIRST: Final = 3
"""Of so many batches of a size the shortest counts: the first ones allocate memory, and may be disturbed."""

_STALE: Final = 16
"""Sizes that have not occurred for this number of batches are estimated from others again."""


class CostEstimate:
    """The run time of batches by size: a moving average for each power of two of the number of input elements.

    Attributes:
        num_batches: how many were recorded.
    """

    def __init__(self) -> None:
        self.num_batches = 0
        self._means: dict[int, float] = {}
        self._counts: dict[int, int] = {}
        self._last: dict[int, int] = {}
        """At which batch each size occurred last."""

    def record(self, num_elements: int, duration_ns: int) -> None:
        """Record that a batch of `num_elements` took `duration_ns`."""
        size = num_elements.bit_length()
        mean, count = self._means.get(size), self._counts.get(size, 0)
        if mean is None:
            mean = float(duration_ns)
        elif count < _NUM_FIRST:
            mean = min(mean, duration_ns)
        else:
            mean += _WEIGHT * (duration_ns - mean)
        self._means[size], self._counts[size] = mean, count + 1
        self.num_batches += 1
        self._last[size] = self.num_batches

    def of(self, num_elements: int) -> float:
        """The estimated time of a batch of `num_elements`, in nanoseconds.

        For an unknown size it is scaled from the nearest known size. If no size is known it is 0, so that the worker is
        chosen and measured.
        """
        if not self._means:
            return 0.0
        size = num_elements.bit_length()
        fresh = [each for each, last in self._last.items() if last > self.num_batches - _STALE]
        known = min(fresh, key=lambda each: abs(each - size))
        return self._means[known] * 2.0 ** (size - known)
