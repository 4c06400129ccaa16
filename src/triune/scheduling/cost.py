"""How long a worker will take for a batch, learnt from the batches it ran."""


class CostEstimate:
    """Nanoseconds by size, an exponential mean for each power of two of the batch's input elements."""

    _WEIGHT = 0.2

    def __init__(self) -> None:
        self._means: dict[int, float] = {}

    def record(self, num_elements: int, duration_ns: int) -> None:
        """Learn that a batch of `num_elements` took `duration_ns`."""
        size = num_elements.bit_length()
        mean = self._means.get(size)
        self._means[size] = duration_ns if mean is None else mean + self._WEIGHT * (duration_ns - mean)

    def of(self, num_elements: int) -> float:
        """Nanoseconds that a batch of `num_elements` will take.

        Unknown sizes are scaled from the nearest known one. 0 while nothing is known: such a worker is tried first.
        """
        if not self._means:
            return 0.0
        size = num_elements.bit_length()
        known = min(self._means, key=lambda each: abs(each - size))
        return self._means[known] * 2.0 ** (size - known)
