"""Notices that a unit computes a model slower than before, without using temperature sensors.

Hot hardware lowers its clocks, and many systems do not report this. The only sign is that batches of the same size take
longer. So for each size of batch, the mean time of recent batches is compared with the best mean since the model was
loaded.
"""

from typing import Final

_WEIGHT: Final = 0.05
_NUM_SETTLED: Final = 40
"""The number of batches from which on the mean of recent batches is used. In that mean, the first batch then has a
weight of about 1/56: it is a plain mean of the first 20 batches, and each later batch lowers their weights by 5%.
"""

SLOW_RATIO: Final = 1.5
"""A unit counts as slowed down once the recent mean time of batches is this many times the best mean."""

RECOVERED_RATIO: Final = 1.2
"""A slowed unit counts as recovered once the recent mean time is less than this many times the best mean."""

LASTING_NS: Final = 10_000_000_000
"""A unit's state changes only after the ratio has lasted for this long, in ns: other programs and models may use a unit
for some seconds.
"""

_MAX_SIZES: Final = 64
"""The most sizes of batches that are watched. There must be a limit, since clients choose the sizes."""


class _Size:
    """The times of the batches with the same number of input elements: how many there were, and their recent and best
    mean time.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean_ns = 0.0
        self.best_ns = 0.0

    def record(self, duration_ns: int) -> float:
        """Record a batch. Returns the ratio of the recent mean time to the best mean; 0 while that is unknown."""
        self.count += 1
        self.mean_ns += max(_WEIGHT, 1 / self.count) * (duration_ns - self.mean_ns)
        if self.count < _NUM_SETTLED:
            return 0.0
        self.best_ns = min(self.best_ns or self.mean_ns, self.mean_ns)
        return self.mean_ns / self.best_ns if self.best_ns else 0.0


class SpeedWatch:
    """Watches the batches of one worker.

    Attributes:
        ratio: the mean time of recent batches, as a multiple of the best one; 0 while it is not known.
        is_slowed: whether the unit has slowed down.
    """

    def __init__(self) -> None:
        self.ratio = 0.0
        self.is_slowed = False
        self._sizes: dict[int, _Size] = {}
        self._since_ns: int | None = None

    def record(self, num_elements: int, duration_ns: int, now_ns: int) -> bool:
        """Record a batch.

        Args:
            num_elements: the number of elements in its inputs.
            duration_ns: how long it took.
            now_ns: when it ended.

        Returns:
            whether `is_slowed` has changed.
        """
        ratio = self._sizes.setdefault(num_elements, _Size()).record(duration_ns)
        if len(self._sizes) > _MAX_SIZES:
            # Forget the size that was seen least: rare sizes never have enough batches for a mean.
            del self._sizes[min(self._sizes, key=lambda size: self._sizes[size].count)]
        if not ratio:
            return False
        self.ratio = ratio
        is_beyond = ratio < RECOVERED_RATIO if self.is_slowed else ratio > SLOW_RATIO
        if not is_beyond:
            self._since_ns = None
            return False
        if self._since_ns is None:
            self._since_ns = now_ns
        if now_ns - self._since_ns < LASTING_NS:
            return False
        self.is_slowed, self._since_ns = not self.is_slowed, None
        return True
