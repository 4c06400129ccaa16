"""The time per request of a worker under load."""


class Pace:
    """The time per request under load: the average time of batches, divided by their average number of requests."""

    _WEIGHT = 0.1

    def __init__(self) -> None:
        self._duration_ns = 0.0
        self._num_requests = 0.0

    def record(self, num_requests: int, duration_ns: int) -> None:
        """Record that a batch of `num_requests` took `duration_ns`."""
        weight = self._WEIGHT if self._num_requests else 1.0
        self._duration_ns += weight * (duration_ns - self._duration_ns)
        self._num_requests += weight * (num_requests - self._num_requests)

    @property
    def request_ns(self) -> float:
        """Nanoseconds per request; 0 if unknown."""
        return self._duration_ns / self._num_requests if self._num_requests else 0.0
