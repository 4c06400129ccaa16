"""Trial batches that measure a unit whose times are unknown, wrong or outdated."""

from collections.abc import Collection, Sequence
from typing import Final

from triune.scheduling.lane import Lane

_NUM_FIRST: Final = 3
"""The number of batches that a unit runs before its times are believed."""

_INTERVAL: Final = 64
"""A unit that gets no batches, since others are faster, is measured again after this number of the model's batches."""

_LONG_WAIT: Final = 64
"""The number of the model's batches for which a unit that was measured before waits for a request of one row. All
others wait for a trial on shared hardware, and a long request may take the unit many times as long.
"""

_MOST_INTERVAL: Final = 4096
"""Each time that a unit gets no batches after it was measured, twice as many of the model's batches pass before it is
measured again, up to this number.
"""


class LaneTrials:
    """Decides when a lane gets a batch only to measure its speed, even if another lane may be faster. A model with one
    unit needs no trials.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        """Plan trials for `lanes`, all lanes of the model."""
        self._is_needed = len({lane.worker.runner.unit for lane in lanes}) > 1
        self._interval = dict.fromkeys(lanes, _INTERVAL)
        self._next = dict.fromkeys(lanes, _INTERVAL)
        self._num_batches = 0
        # No lane is due before the model has run this number of batches. It is 0 until all lanes have been measured
        # once.
        self._next_due = 0

    def due(self, lanes: Sequence[Lane], free: Collection[Lane], num_rows: int) -> Lane | None:
        """Return a lane that is due to be measured by a request of `num_rows`, is free, and is one of the `lanes` that
        the request may use; usually None.
        """
        if self._num_batches < self._next_due or not self._is_needed or len(lanes) == 1:
            return None
        late = self._num_batches - (_LONG_WAIT if num_rows > 1 else 0)
        for lane in lanes:
            if (lane.cost.num_batches < _NUM_FIRST or late >= self._next[lane]) and lane in free:
                return lane
        if all(lane.cost.num_batches >= _NUM_FIRST for lane in self._next):
            self._next_due = min(self._next.values())
        return None

    def started(self, lane: Lane, *, is_trial: bool) -> None:
        """Record that a batch has started on a lane, and set the number of the model's batches after which the lane is
        measured again. If the batch `is_trial` (runs on this lane only to measure it), the previous number is doubled,
        up to _MOST_INTERVAL.
        """
        self._num_batches += 1
        if lane.cost.num_batches >= _NUM_FIRST:
            self._interval[lane] = min(2 * self._interval[lane], _MOST_INTERVAL) if is_trial else _INTERVAL
        self._next[lane] = self._num_batches + self._interval[lane]
        self._next_due = min(self._next_due, self._next[lane])
