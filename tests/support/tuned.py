"""An artificial function from configurations to throughput, in place of measured trials, on a virtual clock."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from triune.core.clock import VirtualClock
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.tuning.axes import Axis, Candidate
from triune.tuning.measurement import LoadLevel, Measurement, Objective
from triune.tuning.search import Found, Search, Trial

Values = Mapping[str, str]


def axis(name: str, *values: str, given: str) -> Axis:
    def change(message: ModelConfigMessage, value: str) -> None:
        message.parameters[name].string_value = value

    return Axis(name, values, given, change)


def level(rate: float, p99_ms: float, callers: int = 4) -> LoadLevel:
    return LoadLevel(callers, 1000, rate, p99_ms / 2, p99_ms)


@dataclass
class Surface:
    """Measures candidates by the function `at`, which returns a load or the reason of a failure.

    Attributes:
        axes: the axes.
        at: returns the load for given values of the axes.
        load_seconds: how long a load of the model takes.
        hang: values for which a trial never ends, so that it takes all the time that a trial may take.
        drift: the factors by which the rates of successive trials differ.
    """

    axes: Sequence[Axis]
    at: Callable[[Values], LoadLevel | str]
    load_seconds: float = 0.5
    hang: Callable[[Values], bool] = lambda _: False
    drift: Sequence[float] = (1.0,)
    clock: VirtualClock = field(default_factory=VirtualClock)
    limits: list[float] = field(default_factory=list[float])
    tried: list[Candidate] = field(default_factory=list[Candidate])
    told: list[float] = field(default_factory=list[float])

    def measure(self, candidate: Candidate, seconds: float, limit_seconds: float) -> Measurement:
        values = {axis.name: value for axis, value in zip(self.axes, candidate, strict=True)}
        self.limits.append(limit_seconds)
        factor = self.drift[len(self.tried) % len(self.drift)]
        self.tried.append(candidate)
        if self.hang(values):
            self.clock.advance(int(limit_seconds * 1e9))
            return Measurement(failure="not done in time")
        self.clock.advance(int((self.load_seconds + seconds) * 1e9))
        found = self.at(values)
        if isinstance(found, str):
            return Measurement(failure=found)
        return Measurement([level(found.requests_per_second * factor, found.p99_ms)])

    def search(
        self,
        budget: float = 60.0,
        p99_ms: float | None = None,
        objective: Objective = Objective.THROUGHPUT,
        is_valid: Callable[[Candidate], bool] = lambda _: True,
    ) -> Found:
        def watch(tried: Trial, share: float) -> None:
            assert tried.candidate == self.tried[-1]
            self.told.append(share)

        return Search(self.axes, is_valid, self.measure, objective, p99_ms, budget, 1, self.clock, watch).run()

    @property
    def seconds(self) -> float:
        return self.clock.now_ns() / 1e9


def hill(values: Values, best: Values) -> float:
    """A rate that is 1000 at `best`, and half of that if one axis differs from it by a factor of 2."""
    return 1000 * math.prod(0.5 ** abs(math.log2(int(values[name]) / int(each))) for name, each in best.items())
