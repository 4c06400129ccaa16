"""The result of a tuning, as figures."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from triune.tuning.axes import Axis, Candidate, describe
from triune.tuning.measurement import Measurement, Objective, Rank, rank_of
from triune.tuning.search import LEAST_GAIN, Found, Trial


@dataclass(frozen=True, slots=True)
class Tried:
    """A configuration that was tried.

    Attributes:
        candidate: the configuration's value on each axis.
        words: the differences from the given config, such as "units=amx instances=2"; "the given config" for the given
            config.
        measurement: its measurement in the final comparison, or else in its longest trial.
        rank: the rank of the measurement; None if the trial failed.
    """

    candidate: Candidate
    words: str
    measurement: Measurement
    rank: Rank | None


@dataclass(frozen=True, slots=True)
class Tuning:
    """The result of a tuning.

    Attributes:
        model: the model's name.
        objective: the objective of the tuning.
        p99_ms: the limit of p99; None for no limit.
        axes: the axes that were varied.
        found: the search's result.
        config: the best config, as text for config.pbtxt. Only tuned fields differ from the given config.
        changes: the fields that differ from the given config, as text; empty if it is kept.
        seconds: how long it took.
        notes: notes for the user.
    """

    model: str
    objective: Objective
    p99_ms: float | None
    axes: Sequence[Axis]
    found: Found
    config: str
    changes: str
    seconds: float
    notes: Sequence[str]

    @property
    def tried(self) -> Sequence[Tried]:
        """Each configuration that was tried, once: the given one first."""
        longest: dict[Candidate, Trial] = {}
        for trial in self.found.trials:
            known = longest.get(trial.candidate)
            if known is None or known.rank is None or (trial.rank is not None and trial.seconds >= known.seconds):
                longest[trial.candidate] = trial
        # Use the final comparison's measurement for the candidates that it compared.
        compared = self.found.compared
        found: list[Tried] = []
        for candidate, trial in longest.items():
            measurement = compared.get(candidate, trial.measurement)
            rank = rank_of(measurement, self.objective, self.p99_ms)
            found.append(Tried(candidate, describe(self.axes, candidate), measurement, rank))
        return found

    @property
    def unmet(self) -> str:
        """Why the limit of p99 is not met by any configuration, and the best that can be had; empty if it is met."""
        ranked = [(each, each.rank) for each in self.tried if each.rank is not None]
        if self.p99_ms is None or any(rank.is_met for _, rank in ranked):
            return ""
        best, rank = max(ranked, key=lambda pair: pair[1].value)
        callers = rank.level.callers
        return (
            f"no configuration that was tried answers 99% of the requests within {self.p99_ms:g} ms; the best that can "
            f"be had is {rank.level.p99_ms:.3g} ms with {callers} caller{'s' if callers > 1 else ''} ({best.words})"
        )

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        found = self.found
        noise = f"the given config's own runs differ by {found.noise:.1%}"
        if found.is_gain and math.isinf(found.gain):
            return "the best keeps to the limit of p99, and the given config does not"
        if found.is_gain:
            return f"the best is {found.gain:.1%} better than the given config ({noise})"
        if found.rival is None:
            return f"no gain: kept. None of the {len(self.tried) - 1} others that were tried is better ({noise})"
        if math.isinf(found.gain):
            return "no gain: kept. Measured again, the best other config failed, or did not keep to the limit of p99"
        if found.gain <= 0:
            return f"no gain: kept. Measured again, the best other config is no better: {found.gain:+.1%} ({noise})"
        if found.gain <= max(found.noise, LEAST_GAIN):
            return (
                f"no gain: kept. Measured again, the best other config has {found.gain:+.1%}, which is noise ({noise})"
            )
        return f"no gain: kept. The best other config has {found.gain:+.1%}, but not in each of its runs ({noise})"


def as_json(tuning: Tuning) -> dict[str, Any]:
    """A tuning as values of JSON."""
    found = tuning.found
    return {
        "model": tuning.model,
        "objective": tuning.objective.value,
        "p99_limit_ms": tuning.p99_ms,
        "verdict": tuning.verdict,
        "unmet": tuning.unmet,
        "is_gain": found.is_gain,
        # An infinite gain becomes null, since JSON has no infinity. The gain is infinite if only the best configuration
        # meets the limit.
        "gain": found.gain if math.isfinite(found.gain) else None,
        "noise": found.noise,
        "best": describe(tuning.axes, found.best),
        "changes": tuning.changes,
        "config": tuning.config,
        "axes": {axis.name: list(axis.values) for axis in tuning.axes},
        "seconds": round(tuning.seconds, 1),
        "num_trials": len(found.trials),
        "num_left": found.num_left,
        "notes": list(tuning.notes),
        "tried": [
            {
                "config": each.words,
                "is_given": each.candidate == found.given,
                "is_best": each.candidate == found.best,
                "is_met": each.rank is not None and each.rank.is_met,
                "callers": each.rank.level.callers if each.rank is not None else None,
                "failure": each.measurement.failure,
                "levels": [asdict(level) for level in each.measurement.levels],
            }
            for each in tuning.tried
        ],
    }
