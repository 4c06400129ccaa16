"""Determines by measurement how many models should compute at once on the same hardware.

Two models that share cores are each slower than alone. Whether their throughput together is higher depends on both: it
is if one of them leaves cores idle, but two models that fill the cores only evict each other's data from the caches. So
the pool measures its *speedup*: the time that the finished batches would have taken alone, on each model's fastest
unit, divided by the time in which they were computed. With one model at a time the speedup is 1, or less because of
gaps between batches.
"""

from typing import Final

LEVELS: Final = (1, 2, 4)
"""The levels that are tried: how many models compute at once. `ALL_MODELS` is tried, too, and `ALL_UNITS` if a model
has several units in the pool. At all levels but `ALL_UNITS` a model computes on one of its units at a time.
"""

ALL_MODELS: Final = 0
"""The level at which any number of models compute at once."""

ALL_UNITS: Final = -1
"""The level at which any number of models compute at once, each on all of its units."""

WINDOW_NS: Final = 400_000_000
"""The length of a window, in ns, in which a level (number of models at once) is measured before the next choice. Only
time counts in which at least two models want to compute.
"""

_LEAST_BATCHES: Final = 8
"""A window of measurement is made longer until this many batches have ended in it; half as many while a number of
models at once is measured that is clearly slower than the best one.
"""

_LEAST_RATIO: Final = 4
"""A window of measurement is made longer until it is this number of times as long as its longest batch. For a number of
models at once that is clearly slower than the best one, half of that is enough.
"""

_NUM_TRIALS: Final = 2
"""Each level (number of models at once) is measured this often before one is chosen, unless it was slow the first time
(`_NEAR`).
"""

_NEAR: Final = 0.9
"""A level (number of models at once) is not measured a second time if its first speedup is less than this part of the
best level's.
"""

_WEIGHT: Final = 0.3
"""The weight of the newest measurement in the moving average of the speedup of a level (number of models at once)."""

_GAIN: Final = 1.03
"""Another level (number of models at once) than the usual one is chosen only if its speedup is at least this many times
that of the usual one: smaller differences may be noise. Usually all models compute at once, which is fair, each on one
of its units at a time, which takes less energy.
"""

_REFRESH: Final = 50
"""After this number of windows, another level (number of models at once) is measured again, since the load may have
changed.
"""

_SLOW_REFRESH: Final = 4
"""A level (number of models at once) that was clearly slower than the best one (`_NEAR`) is measured again only each
time that this many measurements of others were due.
"""

_MOST_REFRESH: Final = 800
"""Each time that a new measurement changes nothing, the number of windows (`WINDOW_NS`) before the next measurement is
doubled, up to this number, since measuring costs time.
"""


class Concurrency:
    """Chooses how many models compute at once.

    Attributes:
        level: the number of models at once, `ALL_MODELS` or `ALL_UNITS`.
        speedups: the mean speedup of each level that was measured.
    """

    def __init__(self) -> None:
        self.level = 1
        self.speedups: dict[int, float] = {}
        self._num_trials: dict[int, int] = {}
        self._num_windows = 0
        self._elapsed_ns = 0.0
        self._value_ns = 0.0
        self._longest_ns = 0.0
        self._num_batches = 0
        self._num_refreshes = 0
        self._chosen = 1
        self._refresh, self._next_refresh = _REFRESH, _REFRESH

    def record(self, value_ns: float, took_ns: float) -> None:
        """Record that a batch ended.

        Args:
            value_ns: how long the batch would have taken alone, on the model's fastest unit.
            took_ns: how long the batch took.
        """
        self._value_ns += value_ns
        self._longest_ns = max(self._longest_ns, took_ns)
        self._num_batches += 1

    def passed(self, elapsed_ns: float) -> bool:
        """Record that at least two models, or units of one model, wanted to compute for `elapsed_ns`.

        Returns:
            whether the window of measurement may be long enough by now.
        """
        self._elapsed_ns += elapsed_ns
        return self._elapsed_ns >= WINDOW_NS

    def is_measured(self, longest_ns: float) -> bool:
        """Whether the current number of models at once was measured for long enough.

        Args:
            longest_ns: how long the longest running batch has taken, or is expected to take.
        """
        # Measuring a slower number of models at once costs throughput, so half as many batches are enough for it.
        speedup = self._value_ns / self._elapsed_ns
        part = 0.5 if speedup < _NEAR * max(self.speedups.values(), default=0.0) else 1.0
        if self._num_batches < part * _LEAST_BATCHES:
            return False
        self._longest_ns = max(self._longest_ns, longest_ns)
        return self._elapsed_ns >= part * _LEAST_RATIO * self._longest_ns

    def choose(self, num_models: int, *, has_units: bool = False) -> None:
        """Choose how many models compute at once (`level`), when the current number was measured.

        Args:
            num_models: the number of models that may want to compute.
            has_units: whether one of the models may use several units of the hardware.
        """
        speedup, level = self._value_ns / self._elapsed_ns, self.level
        mean = self.speedups.get(level)
        self.speedups[level] = speedup if mean is None else mean + _WEIGHT * (speedup - mean)
        self._num_trials[level] = self._num_trials.get(level, 0) + 1
        self._num_windows += 1
        self._elapsed_ns = self._value_ns = self._longest_ns = 0.0
        self._num_batches = 0
        usual = ALL_MODELS if num_models > 1 else 1
        levels = [*(each for each in LEVELS if each < num_models), usual, *([ALL_UNITS] if has_units else [])]
        self.level = self._choose(levels, usual)

    def _choose(self, levels: list[int], usual: int) -> int:
        # First measure with one model at a time: that shows how long each batch takes without others.
        for level in levels:
            if level not in self.speedups:
                return level
        best = max(levels, key=lambda level: self.speedups[level])
        for level in levels:
            if self._num_trials[level] < _NUM_TRIALS and self.speedups[level] > _NEAR * self.speedups[best]:
                return level
        if self.speedups[best] <= _GAIN * self.speedups[usual]:
            best = usual
        if self._num_windows < self._next_refresh:
            return best
        self._refresh = min(2 * self._refresh, _MOST_REFRESH) if best == self._chosen else _REFRESH
        self._next_refresh = self._num_windows + self._refresh
        self._chosen = best
        self._num_refreshes += 1
        others = [level for level in levels if level != best]
        if self._num_refreshes % _SLOW_REFRESH == 0:
            return others[self._num_refreshes // _SLOW_REFRESH % len(others)]
        near = [level for level in others if self.speedups[level] > _NEAR * self.speedups[best]]
        return near[self._num_refreshes % len(near)] if near else best
