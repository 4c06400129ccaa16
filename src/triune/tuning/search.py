"""The search for the best configuration within a budget of time: one axis after the other, by successive halving."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from triune.core.clock import Clock
from triune.core.errors import InvalidArgumentError
from triune.tuning.axes import Axis, Candidate
from triune.tuning.measurement import Measurement, Objective, Rank, joined, rank_of

LEAST_GAIN: Final = 0.02
"""A candidate replaces the best so far if its value is better by more than this fraction. Short trials cannot tell
smaller gains from noise.
"""

_WORTH: Final = 0.85
"""A candidate whose value is below this fraction of the best one's so far is not measured again."""

_SHORT_SHARE: Final = 1 / 120
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.2, 5.0
"""In a short trial each number of callers at once is measured for the part `_SHORT_SHARE` of the budget, but at least
`_SHORTEST_SECONDS` and at most `_LONGEST_SECONDS`.
"""

_NUM_RUNS: Final = 3
"""The given configuration and the best one are measured this often at the end, in turn, each time for twice as long. If
both were equally good, all runs of one would beat all runs of the other in 1 of 20 cases.
"""

_FIRST_SECONDS: Final = 60.0
"""The time limit of the first trial, in seconds. If the budget is larger, the budget is the limit."""

_PATIENCE: Final = 4.0
_PATIENCE_SECONDS: Final = 5.0
"""The time limit of a trial is at most the sum of: _PATIENCE times the time that a trial of the given configuration
took; twice the time that this trial is to measure; and this number of seconds.
"""

Measure: TypeAlias = Callable[[Candidate, float, float], Measurement]
"""Measures a candidate. The second argument is how many seconds each number of callers is measured; the third is the
time limit of the whole trial in seconds, after which it is ended and has failed.
"""


class Watcher(Protocol):
    """Protocol: a function that is called with the progress of the search."""

    def __call__(self, tried: "Trial", share: float, /) -> None:
        """Called when a trial has ended. `share` is the fraction of the budget that is used by then, 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial of a candidate.

    Attributes:
        candidate: the configuration that was tried.
        seconds: how long each number of callers was measured.
        measurement: the measurements.
        rank: the rank of the measurement; None if the trial failed.
    """

    candidate: Candidate
    seconds: float
    measurement: Measurement
    rank: Rank | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        given: the given configuration.
        best: the best configuration. It is the given one unless another is better by more than the noise, and each of
            the other's last runs is better than each of the given one's.
        is_gain: whether `best` differs from `given`.
        gain: how much better the best candidate was than the given one, as a fraction of the given one's value: 0.2 is
            20% more requests a second. It is infinity if only the best candidate meets the limit of p99, and -infinity
            if only the given one does.
        noise: the largest value of the given configuration's runs minus the smallest, as a fraction of the largest.
        compared: the last measurements of the given configuration, and of the best other one if there was any.
        trials: all trials, in order.
        rival: the other configuration that was compared with the given one at the end; None if none was better until
            then.
        num_left: the number of neighbours of the best candidate that were not tried, because the budget was used up.
    """

    given: Candidate
    best: Candidate
    is_gain: bool
    gain: float
    noise: float
    compared: Mapping[Candidate, Measurement]
    trials: Sequence[Trial]
    rival: Candidate | None
    num_left: int

    @property
    def outcome(self) -> Measurement:
        """The final measurement of the best configuration."""
        return self.compared[self.best]


@dataclass(slots=True)
class Search:
    """One search. The order of its trials depends only on the axes and the measurements.

    Attributes:
        axes: the axes that may vary, the most important one first.
        is_valid: whether the values of a candidate fit each other.
        measure: the function that measures a candidate.
        objective: the objective.
        p99_ms: the limit of p99; None for no limit.
        budget_seconds: the time that the search may take.
        num_levels: how many numbers of callers (`LoadLevel`) each trial measures.
        clock: the clock.
        watch: the function that is called with each trial.
    """

    axes: Sequence[Axis]
    is_valid: Callable[[Candidate], bool]
    measure: Measure
    objective: Objective
    p99_ms: float | None
    budget_seconds: float
    num_levels: int
    clock: Clock
    watch: Watcher
    _trials: list[Trial] = field(default_factory=list[Trial], init=False)
    _started_ns: int = field(default=0, init=False)
    _cost_seconds: float = field(default=0.0, init=False)
    _reserve_seconds: float = field(default=0.0, init=False)

    def run(self) -> Found:
        """Run the search, and return its result.

        Raises:
            InvalidArgumentError: the given configuration cannot be measured, or the budget is too small.
        """
        self._started_ns = self.clock.now_ns()
        given = tuple(axis.given for axis in self.axes)
        short = min(max(self.budget_seconds * _SHORT_SHARE, _SHORTEST_SECONDS), _LONGEST_SECONDS)
        # The first trial may take longer than a small budget, so that the error can name the least budget.
        first = self._try(given, short, limit_seconds=max(self.budget_seconds, _FIRST_SECONDS))
        if first.rank is None:
            raise InvalidArgumentError(f"the given configuration cannot be measured: {first.measurement.failure}")
        self._cost_seconds = started = self._elapsed()
        # The first trial took longer because it started a process and imported libraries. The second one shows how long
        # the others will take.
        best = first if 2 * started > self.budget_seconds else self._try(given, short)
        self._cost_seconds = min(started, self._elapsed() - started) or started
        self._reserve_seconds = 2 * _NUM_RUNS * (self._cost_seconds + self.num_levels * short)
        least = started + 2 * self._cost_seconds + self._reserve_seconds
        if least > self.budget_seconds:
            raise InvalidArgumentError(
                f"a budget of {self.budget_seconds:g} s is too small: a trial of this model takes "
                f"{self._cost_seconds:.1f} s here, and the least that is needed is {math.ceil(least)} s"
            )
        left = 0
        is_changed = True
        while is_changed:
            before = best.candidate
            left = 0
            for index in range(len(self.axes)):
                best, missed = self._along(index, best, short)
                left += missed
            is_changed = best.candidate != before and not left
        return self._compare(given, best.candidate, 2 * short, left)

    def _along(self, index: int, best: Trial, short: float) -> tuple[Trial, int]:
        """Try the other values of an axis: all of them briefly, then the better half for twice as long, and so on.

        Returns:
            the best candidate, and the number of candidates that were not tried for lack of time.
        """
        tried = {trial.candidate for trial in self._trials}
        news = [
            (*best.candidate[:index], value, *best.candidate[index + 1 :])
            for value in self.axes[index].values
            if value != best.candidate[index]
        ]
        news = [each for each in news if each not in tried and self.is_valid(each)]
        rivals: list[Trial] = []
        missed = 0
        for candidate in news:
            if not self._has_time(short):
                missed += 1
                continue
            rivals.append(self._try(candidate, short))
        seconds = short
        while True:
            rivals = self._better_half(rivals, best)
            seconds *= 2
            # The best candidate so far is measured again together with its rivals, since the machine may be slower or
            # faster than before.
            if not rivals or not self._has_time(seconds, num=len(rivals) + 1):
                break
            best = self._try(best.candidate, seconds)
            rivals = [self._try(each.candidate, seconds) for each in rivals]
            if len(rivals) == 1:
                break
        winner = rivals[0] if rivals else None
        for each in rivals[1:]:
            if winner is not None and _is_better(each, winner):
                winner = each
        return (winner, missed) if winner is not None and _is_better(winner, best, LEAST_GAIN) else (best, missed)

    def _better_half(self, rivals: Sequence[Trial], best: Trial) -> list[Trial]:
        """Leave out the rivals whose value is less than _WORTH times that of `best`, and return the better half of the
        others, in their order.
        """
        hopeful = [
            each
            for each in rivals
            if each.rank is not None and best.rank is not None and each.rank.is_better_than(best.rank, _WORTH - 1)
        ]
        ordered: list[Trial] = []
        for each in hopeful:
            place = next((at for at, other in enumerate(ordered) if _is_better(each, other)), len(ordered))
            ordered.insert(place, each)
        kept = ordered[: (len(ordered) + 1) // 2]
        return [each for each in hopeful if each in kept]

    def _compare(self, given: Candidate, best: Candidate, seconds: float, left: int) -> Found:
        """Measure the given configuration and the best one in turn, and decide whether the difference is a gain."""
        runs: dict[Candidate, list[Measurement]] = {given: [], best: []}
        for _ in range(_NUM_RUNS):
            for candidate, measured in runs.items():
                measured.append(self._try(candidate, seconds, is_last=True).measurement)
        compared = {candidate: joined(measured) for candidate, measured in runs.items()}
        mine, theirs = self._rank(compared[given]), self._rank(compared[best])
        if mine is None:
            reason = compared[given].failure
            raise InvalidArgumentError(f"the given configuration failed when it was measured again: {reason}")
        ranks = {candidate: [self._rank(each) for each in measured] for candidate, measured in runs.items()}
        own = [each for each in ranks[given] if each is not None]
        others = [each for each in ranks[best] if each is not None]
        values = [each.value for each in own if each.is_met == mine.is_met]
        noise = (max(values) - min(values)) / max(values) if values else 0.0
        if theirs is None or theirs.is_met != mine.is_met:
            gain = math.inf if theirs is not None and theirs.is_met else -math.inf
        else:
            gain = theirs.value / mine.value - 1
        is_apart = all(one.is_better_than(other) for one in others for other in own)
        is_gain = gain > max(noise, LEAST_GAIN) and is_apart
        rival = best if best != given else None
        best = best if is_gain else given
        return Found(given, best, is_gain, gain, noise, compared, tuple(self._trials), rival, left)

    def _rank(self, measurement: Measurement) -> Rank | None:
        return rank_of(measurement, self.objective, self.p99_ms)

    def _try(
        self, candidate: Candidate, seconds: float, *, limit_seconds: float | None = None, is_last: bool = False
    ) -> Trial:
        if limit_seconds is None:
            measuring = self.num_levels * seconds
            limit_seconds = _PATIENCE * self._cost_seconds + 2 * measuring + _PATIENCE_SECONDS
            if not is_last:
                # Limit the trial, so that one that hangs does not use up the time that the last comparison needs.
                left = self.budget_seconds - self._elapsed() - self._reserve_seconds
                limit_seconds = min(limit_seconds, max(left, self._cost_seconds + 2 * measuring))
        measurement = self.measure(candidate, seconds, limit_seconds)
        trial = Trial(candidate, seconds, measurement, self._rank(measurement))
        self._trials.append(trial)
        self.watch(trial, min(1.0, self._elapsed() / self.budget_seconds))
        return trial

    def _has_time(self, seconds: float, num: int = 1) -> bool:
        """Whether `num` trials fit into the budget, with enough time left for the comparison at the end."""
        short = self._trials[0].seconds
        cost = self._cost_seconds + self.num_levels * max(0.0, seconds - short)
        return self._elapsed() + num * cost + self._reserve_seconds <= self.budget_seconds

    def _elapsed(self) -> float:
        return (self.clock.now_ns() - self._started_ns) / 1e9


def _is_better(one: Trial, other: Trial, margin: float = 0.0) -> bool:
    if one.rank is None or other.rank is None:
        return one.rank is not None
    return one.rank.is_better_than(other.rank, margin)
