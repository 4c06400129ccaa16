"""A limit for the number of requests that one step of an ensemble, a call of one of its models, runs at a time."""

from collections import deque

from triune.core.errors import UnavailableError
from triune.scheduling.steps.run import Run


class Slots:
    """The places for requests in one step of an ensemble: a semaphore whose queue is bounded.

    Invariant: no request waits while a place is free.
    """

    def __init__(self, limit: int, max_waiting: int) -> None:
        """Args:
        limit: the number of places; 0 for no limit.
        max_waiting: the number of requests that may wait; 0 for no limit.
        """
        self._limit = limit
        self._max_waiting = max_waiting
        self._num_inside = 0
        self._waiting: deque[Run] = deque()

    def enter(self, run: Run) -> bool:
        """Take a slot for a request, or queue it until `leave` frees one.

        Returns:
            whether a slot was free.

        Raises:
            UnavailableError: too many requests wait.
        """
        if not self._limit:
            return True
        if self._num_inside < self._limit:
            self._num_inside += 1
            return True
        if self._max_waiting and len(self._waiting) >= self._max_waiting:
            raise UnavailableError(
                f"Exceeds maximum queue size of a step, {self._max_waiting}: so many wait for one of the "
                f"{self._limit} that max_inflight_requests lets in: send fewer requests at once, or try again later"
            )
        self._waiting.append(run)
        return False

    def leave(self) -> Run | None:
        """Free a place.

        Returns:
            the request that has waited longest, which has the place now; None if none waits.
        """
        if self._limit and self._waiting:
            return self._waiting.popleft()
        self._num_inside -= bool(self._limit)
        return None

    def forget(self, run: Run) -> None:
        """Remove a request from the waiting ones."""
        if run in self._waiting:
            self._waiting.remove(run)
