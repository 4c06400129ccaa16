"""The measurement of a trial of a configuration, and the order of measurements by an objective."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import fmean

from triune.planning.measured import MeasuredTime


class Objective(Enum):
    """The objective of a tuning: what the best configuration maximizes or minimizes."""

    THROUGHPUT = "throughput"
    """Maximize the requests per second."""
    LATENCY = "latency"
    """Minimize the median time of a request of a single caller."""
    JOULES = "joules"
    """Minimize the joules per request."""


@dataclass(frozen=True, slots=True)
class LoadLevel:
    """The measurements with a number of callers. Each caller sends its next request when the last one is answered.

    Attributes:
        callers: the number of callers.
        num_requests: the number of requests that were answered and measured.
        requests_per_second: their rate.
        p50_ms: the median time from a request to its answer.
        p99_ms: the time within which 99% of them were answered; the longest time, if there are fewer than 100.
        joules: the joules per request; None if they were not metered.
    """

    callers: int
    num_requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """The measurements of a trial.

    Attributes:
        levels: the measurements by the number of callers, ascending; empty if the trial failed.
        failure: why it failed; empty if it did not.
        notes: notes for the user, such as which inputs were sent.
        times: how long batches took, by their size, if one unit computed all of them.
    """

    levels: Sequence[LoadLevel] = ()
    failure: str = ""
    notes: Sequence[str] = ()
    times: Sequence[MeasuredTime] = ()


@dataclass(frozen=True, slots=True)
class Rank:
    """The rank of a measurement by an objective.

    Attributes:
        is_met: whether a load is within the limit of p99, if there is one.
        value: a number that is larger for a better measurement: requests per second, or the inverse of milliseconds or
            joules. If the limit is not met, it is the inverse of the lowest p99 in milliseconds.
        level: the measured load.
    """

    is_met: bool
    value: float
    level: LoadLevel

    def is_better_than(self, other: "Rank", margin: float = 0.0) -> bool:
        """Whether this rank's value is above `other.value * (1 + margin)`. A rank that meets the limit of p99 is better
        than any that does not.
        """
        if self.is_met != other.is_met:
            return self.is_met
        return self.value > other.value * (1 + margin)


def rank_of(measurement: Measurement, objective: Objective, p99_ms: float | None) -> Rank | None:
    """The rank of a measurement; None if it failed.

    Args:
        measurement: the measurement.
        objective: the objective.
        p99_ms: the limit of p99; None for no limit.
    """
    levels = measurement.levels if objective is not Objective.LATENCY else measurement.levels[:1]
    if measurement.failure or not levels:
        return None
    within = [level for level in levels if p99_ms is None or level.p99_ms <= p99_ms]
    if not within:
        least = min(levels, key=lambda level: level.p99_ms)
        return Rank(False, 1 / least.p99_ms, least)
    best = max(within, key=lambda level: value_of(level, objective))
    return Rank(True, value_of(best, objective), best)


def value_of(level: LoadLevel, objective: Objective) -> float:
    """The number by which an objective compares loads; larger is better: requests per second, or the inverse of
    milliseconds or joules.
    """
    match objective:
        case Objective.THROUGHPUT:
            return level.requests_per_second
        case Objective.LATENCY:
            return 1 / level.p50_ms
        case Objective.JOULES:
            return 1 / level.joules if level.joules else 0.0


def joined(runs: Sequence[Measurement]) -> Measurement:
    """The means of several measurements of one configuration; if one of them failed, the failed one itself."""
    failed = next((each for each in runs if each.failure), None)
    if failed is not None:
        return failed
    levels = [
        LoadLevel(
            same[0].callers,
            sum(each.num_requests for each in same),
            fmean(each.requests_per_second for each in same),
            fmean(each.p50_ms for each in same),
            fmean(each.p99_ms for each in same),
            None if any(each.joules is None for each in same) else fmean(each.joules or 0.0 for each in same),
        )
        for same in zip(*(each.levels for each in runs), strict=True)
    ]
    return Measurement(levels, notes=runs[-1].notes)
