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


class Pace:
    """Nanoseconds a request while there is always another: exponential means of the batches' times and requests."""

    _WEIGHT = 0.1

    def __init__(self) -> None:
        self._duration_ns = 0.0
        self._num_requests = 0.0

    def record(self, num_requests: int, duration_ns: int) -> None:
        """Learn that a batch of so many requests took `duration_ns`."""
        weight = self._WEIGHT if self._num_requests else 1.0
        self._duration_ns += weight * (duration_ns - self._duration_ns)
        self._num_requests += weight * (num_requests - self._num_requests)

    @property
    def request_ns(self) -> float:
        """What one request takes; 0 while nothing is known."""
        return self._duration_ns / self._num_requests if self._num_requests else 0.0
