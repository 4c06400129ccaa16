"""Run a trace on a chip: the server's dispatchers, batchers, lanes and arbiter, on a virtual clock."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from triune.arbiter.arbiter import Arbiter
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array
from triune.core.errors import UnavailableError
from triune.core.requests import UNIT_PARAMETER, InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.planning.units import Target
from triune.scheduling.dispatcher import Dispatcher
from triune.simulation.chip import SimulatedChip
from triune.simulation.profile import Profile
from triune.simulation.trace import Arrival
from triune.simulation.virtual_loop import virtual_loop
from triune.simulation.worker import SimulatedBatch, SimulatedWorker


@dataclass(frozen=True, slots=True)
class Schedule:
    """The simulated outcome of a trace's requests under one rule.

    Attributes:
        name: the name of the rule: "triune", "gpu alone", "round robin".
        batches: the batches, in the order in which they ended.
        num_answered: the number of requests that were answered.
        num_refused: the number of requests that were refused because a queue was full, or that timed out.
        busy_ns: how long each unit was busy, in ns.
    """

    name: str
    batches: Sequence[SimulatedBatch]
    num_answered: int
    num_refused: int
    busy_ns: Mapping[Unit, float]


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule that chooses the unit of each request.

    Attributes:
        name: the rule's name.
        units: the units that models are served on; empty for all.
        choose: returns the unit of a request, given the units that serve its model, the number of pending requests on
            each unit, and the number of earlier requests to the model. None if the dispatcher chooses.
    """

    name: str
    units: Sequence[Unit] = ()
    choose: Callable[[Sequence[Unit], Mapping[Unit, int], int], Unit] | None = None


def rules_of(profiles: Mapping[str, Profile]) -> list[Rule]:
    """Triune's own rule, and the rules to compare it with: each unit alone that serves all models, round robin, and the
    unit with the fewest pending requests.
    """
    units = dict.fromkeys(unit for profile in profiles.values() for unit in profile.costs)
    common = [unit for unit in units if all(unit in each.costs for each in profiles.values())]
    alone = [Rule(f"{unit.value} alone", [unit]) for unit in common]
    return [Rule("triune"), *alone, Rule("round robin", (), _in_turn), Rule("least loaded", (), _least)]


def _in_turn(served: Sequence[Unit], under_way: Mapping[Unit, int], num_before: int) -> Unit:
    del under_way
    return served[num_before % len(served)]


def _least(served: Sequence[Unit], under_way: Mapping[Unit, int], num_before: int) -> Unit:
    del num_before
    return min(served, key=lambda unit: under_way.get(unit, 0))


def play(arrivals: Sequence[Arrival], profiles: Mapping[str, Profile], target: Target, rule: Rule) -> Schedule:
    """Run a trace by a rule, until each request is answered or refused. Equal arguments give equal schedules.

    Args:
        arrivals: at least one request, in order of arrival. Each names a model in `profiles`, and a unit and number of
            rows that the model supports.
        profiles: the models by name.
        target: the chip.
        rule: the rule that chooses units.
    """
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: virtual_loop(clock)) as runner:
        return runner.run(_Play(arrivals, profiles, target, rule, clock).run())


class _Play:
    def __init__(
        self,
        arrivals: Sequence[Arrival],
        profiles: Mapping[str, Profile],
        target: Target,
        rule: Rule,
        clock: VirtualClock,
    ) -> None:
        self._arrivals: Iterator[Arrival] = iter(arrivals)
        self._profiles = profiles
        self._rule = rule
        self._clock = clock
        self._arbiter = Arbiter(clock)
        watts = {unit: each.rates.watts for unit, each in target.units.items()}
        self._chip = SimulatedChip(clock, self._arbiter.pool_of, watts, target.memory_gb_per_s)
        self._batches: list[SimulatedBatch] = []
        self._under_way: Counter[Unit] = Counter()
        self._num_sent: Counter[str] = Counter()
        self._num_left = len(arrivals)
        self._num_refused = 0
        self._inputs: dict[tuple[str, int], dict[str, Array]] = {}

    async def run(self) -> Schedule:
        self._done = asyncio.Event()
        self._models = {name: self._dispatcher(each) for name, each in self._profiles.items()}
        self._send_next()
        await self._done.wait()
        num_answered = sum(len(each.arrived_ns) for each in self._batches)
        return Schedule(self._rule.name, self._batches, num_answered, self._num_refused, self._chip.busy_ns)

    def _units_of(self, model: str) -> list[Unit]:
        return [unit for unit in self._profiles[model].costs if not self._rule.units or unit in self._rule.units]

    def _dispatcher(self, profile: Profile) -> Dispatcher:
        workers = [
            SimulatedWorker(profile, unit, self._chip, self._clock, self._batches.append)
            for unit in self._units_of(profile.name)
        ]
        return Dispatcher(
            profile.name,
            1,
            profile.policy,
            (),
            workers,
            ModelStatistics(),
            self._clock,
            arbiter=self._arbiter,
            weight=profile.weight,
            objective_ns=profile.objective_ns,
        )

    def _send_next(self) -> None:
        """Have the clock send the next request at its time. Only one request has a timer, however long the trace is."""
        arrival = next(self._arrivals, None)
        if arrival is not None:
            self._clock.call_at(arrival.at_ns, lambda: self._send(arrival))

    def _send(self, arrival: Arrival) -> None:
        unit = arrival.unit
        if self._rule.choose is not None and unit is None:
            units = self._units_of(arrival.model)
            unit = self._rule.choose(units, self._under_way, self._num_sent[arrival.model])
        elif self._rule.units:
            unit = None
        self._num_sent[arrival.model] += 1
        parameters = {} if unit is None else {UNIT_PARAMETER: unit.value}
        key = arrival.model, arrival.num_rows
        if key not in self._inputs:
            # The scheduler reads only sizes, so one element represents all elements of an array.
            shape = arrival.num_rows, self._profiles[arrival.model].row_elements
            self._inputs[key] = {"input": np.broadcast_to(np.zeros((), np.float32), shape)}
        inputs = self._inputs[key]
        request = InferenceRequest(arrival.model, inputs, parameters=parameters, priority=arrival.priority)
        try:
            future = self._models[arrival.model].submit(Call(request, inputs, arrival.num_rows))
        except UnavailableError:
            self._num_refused += 1
            self._end_one()
        else:
            if unit is not None:
                self._under_way[unit] += 1
            future.add_done_callback(lambda done: self._answered(unit, done))
        self._send_next()

    def _answered(self, unit: Unit | None, future: asyncio.Future[InferenceResponse]) -> None:
        if unit is not None:
            self._under_way[unit] -= 1
        self._num_refused += isinstance(future.exception(), UnavailableError)
        self._end_one()

    def _end_one(self) -> None:
        self._num_left -= 1
        if not self._num_left:
            self._done.set()
