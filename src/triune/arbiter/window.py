"""A window of measurement, in which it is measured how much a number of models at once gets done."""

import math


class Window:
    """The time from the choice of a level to the next choice. A batch counts for the part of its time that it computed
    within the window. What has not ended yet when the window closes is awaited before the next choice: otherwise each
    window would lack as many batches as computed at its end, and more models at once would seem to get less done.

    All times are on a clock of the pool that stands still while less than two models want to compute
    (`Pool.crowded_part_ns`).

    Attributes:
        is_closed: whether the window has closed.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self._begin_ns = 0.0
        self._end_ns = math.inf
        self._num_running = 0
        self._num_awaited = 0
        # The number of batches that had begun in the pool when the window closed.
        self._num_starts = 0

    @property
    def is_over(self) -> bool:
        """Whether the window has closed, and every batch has ended that ran then."""
        return self.is_closed and not self._num_awaited

    def began(self) -> None:
        """Count a batch that begins."""
        self._num_running += 1

    def ended(self, num_starts: int) -> None:
        """Count a batch that has ended, and was the pool's batch number `num_starts`."""
        self._num_running -= 1
        if self.is_closed and num_starts <= self._num_starts:
            self._num_awaited -= 1

    def overlap_ns(self, began_ns: float, now_ns: float) -> float:
        """How much of the time from `began_ns` to `now_ns` lies in the window."""
        return max(0.0, min(now_ns, self._end_ns) - max(began_ns, self._begin_ns))

    def close(self, now_ns: float, num_starts: int) -> None:
        """End the window now, when `num_starts` batches have begun in the pool."""
        self.is_closed, self._end_ns = True, now_ns
        self._num_awaited, self._num_starts = self._num_running, num_starts

    def reopen(self, now_ns: float) -> None:
        """Begin the next window."""
        self.is_closed, self._begin_ns, self._end_ns = False, now_ns, math.inf
