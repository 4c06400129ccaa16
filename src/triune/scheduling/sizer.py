"""Choose the batch size of a worker by measured throughput.

The largest possible batch is often not the fastest. Many models take as long per row in large batches as in medium
ones; some take longer, since their activations outgrow a cache. And if one batch answers all clients at once, the unit
is idle until they have sent their next requests. Both effects are measured: the rating of a batch size is the time from
the start of a batch to the start of the next, including idle time, divided by its rows. Time in which other models use
the hardware is not included, since it may follow a batch of any size.
"""

from collections.abc import Sequence

_WEIGHT = 0.2
_SHORTER_WEIGHT = 0.5
"""In the moving average, a measurement shorter than the mean has this weight, a longer one `_WEIGHT`: what disturbs a
measurement makes it longer.
"""
_NUM_TRIALS = 3
_NUM_SIZES = 4
_GAIN = 0.95
"""A smaller size is chosen only if its time per row beats a larger one's by this factor, which exceeds noise."""
_PART = 0.003
"""Sizes other than the best one are tried again, since the measurements depend on the load. A size is due when the
extra time of such a trial is at most this part of the time for all rows that ran since the size was last used.
"""
_INTERVAL = 8
"""At most one in this number of batches has a size other than the best one, to measure that size again."""


class BatchSizer:
    """Chooses between all waiting rows, a half, a quarter and an eighth of them, as powers of two.

    Each size is tried a few times before it is rated, the largest one first. Ratings are kept by size class: the binary
    logarithm of the rows, rounded up, so that 17 to 32 rows are class 5.
    """

    def __init__(self) -> None:
        self._costs: dict[int, float] = {}
        self._num_trials: dict[int, int] = {}
        self._num_choices = 0
        self._total_rows = 0
        # For each size class, the number of all rows (`_total_rows`) at the time when a batch of the class last ran.
        self._ran_at: dict[int, int] = {}
        self._num_rows = 0
        self._started_ns = 0

    def choose(self, num_rows: int) -> int:
        """The number of rows for the next batch, at least 1, if `num_rows` rows wait and fit into one batch."""
        largest = (num_rows - 1).bit_length()
        classes = range(largest, max(-1, largest - _NUM_SIZES), -1)
        num_trials, costs = self._num_trials, self._costs
        for each in classes:
            if num_trials.get(each, 0) < _NUM_TRIALS:
                return 1 << each if each < largest else num_rows
        chosen = largest
        for each in classes:
            if costs[each] < _GAIN * costs[chosen]:
                chosen = each
        self._num_choices += 1
        if self._num_choices >= _INTERVAL:
            chosen = self._due(classes, chosen, num_rows)
        return 1 << chosen if chosen < largest else num_rows

    def _due(self, classes: Sequence[int], best: int, num_rows: int) -> int:
        """The size class to try again; `best` if none is due. If several are due, it is the one that was used least
        recently, counted in rows. `num_rows` is the number of rows that wait.
        """
        costs, most, found = self._costs, 0, best
        for each in classes:
            passed = self._total_rows - self._ran_at[each]
            extra_ns = (costs[each] - costs[best]) * min(1 << each, num_rows)
            if each != best and passed > most and passed * costs[best] * _PART >= extra_ns:
                most, found = passed, each
        if found != best:
            self._num_choices = 0
        return found

    def record_start(self, num_rows: int, now_ns: int, busy_ns: int, waited_ns: int = 0) -> None:
        """Record that a batch starts.

        Args:
            num_rows: its rows.
            now_ns: the time.
            busy_ns: how long the batch before it computed, without what others had of the hardware. Idle time counts up
                to the same duration: more of it means that clients sent no requests.
            waited_ns: how long others have had the hardware since that batch started: before the model's turn, and
                beside it.
        """
        if self._num_rows:
            elapsed_ns = max(busy_ns, min(now_ns - self._started_ns - waited_ns, 2 * busy_ns))
            self._learn((self._num_rows - 1).bit_length(), elapsed_ns / self._num_rows)
        self._num_rows, self._started_ns = num_rows, now_ns
        self._total_rows += num_rows
        self._ran_at[(num_rows - 1).bit_length()] = self._total_rows

    def _learn(self, size: int, row_ns: float) -> None:
        self._num_trials[size] = self._num_trials.get(size, 0) + 1
        mean = self._costs.get(size)
        if mean is not None:
            row_ns = mean + (_SHORTER_WEIGHT if row_ns < mean else _WEIGHT) * (row_ns - mean)
        self._costs[size] = row_ns
