"""Limits the number of requests that may run in one step of an ensemble at the same time."""

from collections import deque

from triune.core.errors import UnavailableError
from triune.scheduling.steps.run import Run


class Slots:
    """The slots for requests in one step of an ensemble: a semaphore whose queue is bounded.

    Invariant: no request waits while a slot is free.
    """

    def __init__(self, limit: int, max_waiting: int) -> None:
        """Args:
        limit: the number of slots; 0 means no limit.
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
        """Free a slot.

        Returns:
            the request that has waited longest, which now has the slot; None if no request waits.
        """
        if self._limit and self._waiting:
            return self._waiting.popleft()
        self._num_inside -= bool(self._limit)
        return None

    def forget(self, run: Run) -> None:
        """Remove a request from the waiting ones."""
        if run in self._waiting:
            self._waiting.remove(run)
