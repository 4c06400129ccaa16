"""How many requests may be in one step of a graph at a time."""

from collections import deque

from triune.core.errors import UnavailableError
from triune.scheduling.steps.run import Run


class Slots:
    """The places of one step.

    State law: nobody waits while a place is free.
    """

    def __init__(self, limit: int, max_waiting: int) -> None:
        """Args:
        limit: how many requests may be in the step; 0 for any number.
        max_waiting: how many may wait; 0 for any number.
        """
        self._limit = limit
        self._max_waiting = max_waiting
        self._num_inside = 0
        self._waiting: deque[Run] = deque()

    def enter(self, run: Run) -> bool:
        """Take a place. False where there is none: the request waits until `leave` gives it one.

        Raises:
            UnavailableError: too many wait.
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
        """Give a place back. Returns the request that has waited longest, whose place it is now."""
        if self._limit and self._waiting:
            return self._waiting.popleft()
        self._num_inside -= bool(self._limit)
        return None

    def forget(self, run: Run) -> None:
        """A request does not wait any more."""
        if run in self._waiting:
            self._waiting.remove(run)
