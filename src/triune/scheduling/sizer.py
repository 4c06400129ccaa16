"""Choose the batch size of a worker by measured throughput.

The largest possible batch is often not the fastest. Many models take as long per row in large batches as in medium
ones; some take longer, since their activations outgrow a cache. And if one batch answers all clients at once, the unit
is idle until they have sent their next requests. Both effects are measured: the rating of a batch size is the time from
its start to the start of the next batch, idle time included, divided by its rows.
"""

_WEIGHT = 0.2
_NUM_TRIALS = 3
_NUM_SIZES = 4
_GAIN = 0.95
"""A smaller size is chosen only if its time per row beats a larger one's by this factor, which exceeds noise."""
_REFRESH = 64
"""After this number of choices another size is tried again, since the measurements depend on the load."""


class BatchSizer:
    """Chooses between all waiting rows, a half, a quarter and an eighth of them, as powers of two.

    Each size is tried a few times before it is rated, the largest one first. Ratings are kept by size class: the binary
    logarithm of the rows, rounded up, so that 17 to 32 rows are class 5.
    """

    def __init__(self) -> None:
        self._costs: dict[int, float] = {}
        self._num_trials: dict[int, int] = {}
        self._num_choices = 0
        self._size = 0
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
        self._num_choices += 1
        best = largest
        if self._num_choices % _REFRESH == 0:
            best = classes[self._num_choices // _REFRESH % len(classes)]
        else:
            for each in classes:
                if costs[each] < _GAIN * costs[best]:
                    best = each
        return 1 << best if best < largest else num_rows

    def record_start(self, num_rows: int, now_ns: int, busy_ns: int) -> None:
        """Record that a batch starts, and that the batch before it computed for `busy_ns`.

        Idle time above `busy_ns` does not count: it means that clients sent no requests.
        """
        if self._num_rows:
            elapsed_ns = min(now_ns - self._started_ns, 2 * busy_ns)
            self._learn((self._num_rows - 1).bit_length(), elapsed_ns / self._num_rows)
        self._num_rows, self._started_ns = num_rows, now_ns

    def _learn(self, size: int, row_ns: float) -> None:
        self._num_trials[size] = self._num_trials.get(size, 0) + 1
        mean = self._costs.get(size)
        self._costs[size] = row_ns if mean is None else mean + _WEIGHT * (row_ns - mean)
