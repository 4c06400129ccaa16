"""How many of the rows that wait a worker should take at once, learnt from what it did.

Taking all that waits looks best and often is not: many models compute no faster per row in large batches than in
middling ones, some slower (their activations outgrow a cache), and clients who wait for their answers leave the unit
idle after a batch of everything, while their next requests are received. Neither can be told from the model, so both
are measured: a size is worth what it took from one start to the next, idle time included, per row.
"""

_WEIGHT = 0.2
_NUM_TRIALS = 3
_NUM_SIZES = 4
_GAIN = 0.95
"""A smaller size must be better than a larger one by this factor, or noise would choose."""
_REFRESH = 64
"""Every so many choices another size is tried again: what was learnt under other load may be wrong by now."""


class BatchSizer:
    """Chooses among the rows that wait and a half, a quarter and an eighth of them, in powers of two.

    Each is tried a few times before it is judged, the largest first.
    """

    def __init__(self) -> None:
        self._costs: dict[int, float] = {}
        self._num_trials: dict[int, int] = {}
        self._num_choices = 0
        self._size = 0
        self._num_rows = 0
        self._started_ns = 0

    def choose(self, num_rows: int) -> int:
        """The most rows to take of `num_rows` that wait and would fit together, at least 1."""
        sizes = [num_rows]
        half = 1 << (num_rows - 1).bit_length() - 1 if num_rows > 1 else 0
        while half and len(sizes) < _NUM_SIZES:
            sizes.append(half)
            half //= 2
        for size in sizes:
            if self._num_trials.get(_class_of(size), 0) < _NUM_TRIALS:
                return size
        self._num_choices += 1
        if self._num_choices % _REFRESH == 0:
            return sizes[self._num_choices // _REFRESH % len(sizes)]
        best = num_rows
        for size in sizes:
            if self._costs[_class_of(size)] < _GAIN * self._costs[_class_of(best)]:
                best = size
        return best

    def record_start(self, num_rows: int, now_ns: int, busy_ns: int) -> None:
        """A batch starts; the one before it computed for `busy_ns`.

        Idle time counts up to as much as was computed: beyond that nobody sent anything.
        """
        if self._num_rows:
            elapsed_ns = min(now_ns - self._started_ns, 2 * busy_ns)
            self._learn(_class_of(self._num_rows), elapsed_ns / self._num_rows)
        self._num_rows, self._started_ns = num_rows, now_ns

    def _learn(self, size: int, row_ns: float) -> None:
        self._num_trials[size] = self._num_trials.get(size, 0) + 1
        mean = self._costs.get(size)
        self._costs[size] = row_ns if mean is None else mean + _WEIGHT * (row_ns - mean)


def _class_of(num_rows: int) -> int:
    """17 to 32 rows are of one class, whose judged size is 32."""
    return (num_rows - 1).bit_length()
