"""The report of a simulation: the figures of each schedule, and a bound that no schedule can beat. All figures are
simulated.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from triune.arbiter.arbiter import Arbiter
from triune.core.clock import VirtualClock
from triune.core.units import Unit
from triune.planning.constants import Constants
from triune.planning.units import Target
from triune.simulation.optimum import Optimum
from triune.simulation.profile import Profile
from triune.simulation.run import Schedule, play, rules_of
from triune.simulation.trace import Arrival
from triune.simulation.worker import SimulatedBatch

KIND = "simulated"
"""Says in a simulation's JSON that all of its figures are simulated, not measured."""


@dataclass(frozen=True, slots=True)
class Served:
    """Requests that were answered: of one model or of all (model ""), on one unit or on all (None).

    Attributes:
        model, unit: the model and the unit.
        num_requests, num_rows: the number of these requests, and of their rows.
        rows_per_second: the rate over the time of the whole schedule.
        p50_ms, p99_ms: the time from arrival to answer that 50%, and 99%, of the requests did not exceed.
        queue_ms: the mean time that they waited for their batch to begin.
        rows_per_batch: the mean size of batches.
        joules: the energy of their batches.
    """

    model: str
    unit: Unit | None
    num_requests: int
    num_rows: int
    rows_per_second: float
    p50_ms: float
    p99_ms: float
    queue_ms: float
    rows_per_batch: float
    joules: float


@dataclass(frozen=True, slots=True)
class Result:
    """A schedule in figures.

    Attributes:
        name: the name of the rule that made the schedule.
        seconds: the time from the first arrival to the last answer.
        num_refused: the number of requests that were refused because a queue was full, or that timed out.
        total: the figures of all answered requests.
        parts: the figures of each model on each unit.
        utilisation: the fraction of the time in which each unit had a batch.
        least_seconds: a lower bound of the time in which any schedule can answer the same requests, given their arrival
            times.
        least_joules: a lower bound of the energy of any schedule.
        least_p99_ms: a lower bound of the time within which any schedule can answer 99 of 100 requests.
    """

    name: str
    seconds: float
    num_refused: int
    total: Served
    parts: Sequence[Served]
    utilisation: Mapping[Unit, float]
    least_seconds: float
    least_joules: float
    least_p99_ms: float

    @property
    def of_optimum(self) -> float:
        """The throughput as a fraction of the best possible one: `least_seconds` divided by `seconds`."""
        return self.least_seconds / self.seconds


@dataclass(frozen=True, slots=True)
class Simulation:
    """The result of simulating a trace on a chip. Every figure is simulated, with predicted times of batches.

    Attributes:
        chip: the name of the chip.
        num_requests: the number of requests in the trace.
        trace_seconds: the time from its first arrival to its last.
        capacity_rows: the largest number of rows per second that the chip can compute, of all models together, in the
            mix of the trace.
        results: the results of all schedules, Triune's own first.
        notes: the assumptions, the units that are left out, and the error of the predictions.
    """

    chip: str
    num_requests: int
    trace_seconds: float
    capacity_rows: float
    results: Sequence[Result]
    notes: Sequence[str]


def capacity(profiles: Mapping[str, Profile], target: Target, rows: Mapping[str, float]) -> float:
    """The most times a second that the target can compute all the rows in `rows`, which has the number of rows of each
    model.
    """
    return 1e9 / _optimum(profiles, target).least_ns(rows)[0]


def simulated(
    arrivals: Sequence[Arrival],
    profiles: Mapping[str, Profile],
    target: Target,
    constants: Constants,
    *,
    is_compared: bool = True,
) -> Simulation:
    """Run a trace by Triune's rule, and by the rules that it is compared with. The trace begins with its first
    arrival.

    Args:
        arrivals: the trace.
        profiles: the models by name.
        target: the chip.
        constants: the planner's constants, with the error of its predictions.
        is_compared: whether to run it by other rules too.
    """
    optimum = _optimum(profiles, target)
    rules = rules_of(profiles)
    results = [
        _result(play(arrivals, profiles, target, rule), optimum) for rule in (rules if is_compared else rules[:1])
    ]
    rows: dict[str, float] = {}
    for each in arrivals:
        rows[each.model] = rows.get(each.model, 0.0) + each.num_rows
    return Simulation(
        target.name,
        len(arrivals),
        arrivals[-1].at_ns / 1e9,
        sum(rows.values()) * 1e9 / optimum.least_ns(rows)[0],
        results,
        _notes(profiles, target, constants),
    )


def _optimum(profiles: Mapping[str, Profile], target: Target) -> Optimum:
    return Optimum(profiles, Arbiter(VirtualClock()).pool_of, target.memory_gb_per_s)


def _result(schedule: Schedule, optimum: Optimum) -> Result:
    batches = schedule.batches
    seconds = max((each.ended_ns for each in batches), default=0) / 1e9
    pairs = dict.fromkeys((each.model, each.unit) for each in sorted(batches, key=lambda each: each.model))
    requests = sorted(
        (arrived_ns, each.model, rows)
        for each in batches
        for arrived_ns, rows in zip(each.arrived_ns, each.request_rows, strict=True)
    )
    return Result(
        schedule.name,
        seconds,
        schedule.num_refused,
        _served("", None, batches, seconds),
        [
            _served(model, unit, [each for each in batches if (each.model, each.unit) == (model, unit)], seconds)
            for model, unit in pairs
        ],
        {unit: ns / 1e9 / seconds for unit, ns in schedule.busy_ns.items() if ns},
        optimum.last_ns(requests) / 1e9 if requests else 0.0,
        sum(rows * optimum.row_joules(model) for _, model, rows in requests),
        _percentile([optimum.fastest_ns(model, rows) for _, model, rows in requests], 99) / 1e6,
    )


def _served(model: str, unit: Unit | None, batches: Sequence[SimulatedBatch], seconds: float) -> Served:
    latencies = [each.ended_ns - arrived_ns for each in batches for arrived_ns in each.arrived_ns]
    waits = [each.started_ns - arrived_ns for each in batches for arrived_ns in each.arrived_ns]
    num_rows = sum(each.num_rows for each in batches)
    return Served(
        model,
        unit,
        len(latencies),
        num_rows,
        num_rows / seconds if seconds else 0.0,
        _percentile(latencies, 50) / 1e6,
        _percentile(latencies, 99) / 1e6,
        float(np.mean(waits)) / 1e6 if waits else 0.0,
        num_rows / len(batches) if batches else 0.0,
        sum(each.joules for each in batches),
    )


def _percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` percent of the values do not exceed; 0 without values."""
    return float(np.percentile(values, percent, method="inverted_cdf")) if values else 0.0


def _notes(profiles: Mapping[str, Profile], target: Target, constants: Constants) -> list[str]:
    notes = [
        "times and energies of batches are predicted; units that are busy at once share the memory's bandwidth and "
        "their pools of hardware by a model that no measurement confirms",
        *target.notes,
    ]
    for profile in profiles.values():
        notes += [f"{unit.value} does not serve {profile.name}: {why}" for unit, why in profile.left_out.items()]
    for group in dict.fromkeys(each.group for each in profiles.values()):
        if target.is_scored and (score := constants.score("latency", group)) is not None:
            notes.append(
                f"of {score.num_rows} measurements of {score.models} held out, half of such predictions were within "
                f"{score.median:.0%}, nine of ten within {score.ninth:.0%}"
            )
    return notes


def as_json(simulation: Simulation) -> dict[str, Any]:
    """Convert a simulation to JSON. Names of times end in their unit, and energies are in joules."""
    value: dict[str, Any] = {"kind": KIND, **dataclasses.asdict(simulation)}
    for result, each in zip(simulation.results, value["results"], strict=True):
        each["of_optimum"] = result.of_optimum
        each["utilisation"] = {unit.value: part for unit, part in result.utilisation.items()}
        _name_units([each["total"], *each["parts"]])
    return value


def _name_units(parts: Iterable[dict[str, Any]]) -> None:
    for part in parts:
        part["unit"] = part["unit"].value if part["unit"] is not None else None
