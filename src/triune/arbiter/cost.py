"""Estimates of how long a unit takes for a batch, from the batches that it ran."""


class CostEstimate:
    """The run time of batches by size: a moving average for each power of two of the number of input elements."""

    _WEIGHT = 0.2

    def __init__(self) -> None:
        self._means: dict[int, float] = {}

    def record(self, num_elements: int, duration_ns: int) -> None:
        """Record that a batch of `num_elements` took `duration_ns`."""
        size = num_elements.bit_length()
        mean = self._means.get(size)
        self._means[size] = duration_ns if mean is None else mean + self._WEIGHT * (duration_ns - mean)

    def of(self, num_elements: int) -> float:
        """The estimated time of a batch of `num_elements`, in nanoseconds.

        For an unknown size it is scaled from the nearest known size. If no size is known it is 0, so that the worker is
        chosen and measured.
        """
        if not self._means:
            return 0.0
        size = num_elements.bit_length()
        known = min(self._means, key=lambda each: abs(each - size))
        return self._means[known] * 2.0 ** (size - known)
