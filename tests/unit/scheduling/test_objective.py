"""A latency objective: batches are cut to it, and within it the cheapest unit computes."""

import asyncio
from collections.abc import Mapping

import numpy as np
import pytest

from support.energy_meters import rail
from support.hand import Doubler, HandWorker
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.energy import EnergyKind, Phase
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ledger import EnergyLedger
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.lane import Lane
from triune.scheduling.objective import Objective

MS = 1_000_000


class Bench:
    """A model on units whose time and joules of a row are given, and known to the dispatcher."""

    def __init__(self, objective_ms: float, delay_us: int = 0, **units: tuple[int, float]) -> None:
        self.clock = VirtualClock()
        self.row_ms = {Unit(name): each for name, (each, _) in units.items()}
        self.workers = {unit: HandWorker(Doubler(unit), self.clock) for unit in self.row_ms}
        self.statistics = ModelStatistics()
        ledger = EnergyLedger(HandMeter([rail("cpu")], self.clock))
        accounts = {unit: ledger.account("m", 1, unit) for unit in self.row_ms}
        self.dispatcher = Dispatcher(
            "m",
            1,
            BatchingPolicy(max_batch_size=16, is_dynamic=True, max_queue_delay_us=delay_us),
            ("y",),
            list(self.workers.values()),
            self.statistics,
            self.clock,
            accounts=accounts,
            objective_ns=round(objective_ms * MS),
        )
        for _ in range(3 * len(units)):
            self.send()
            self.clock.advance(delay_us * 1000)
            self.finish()
        self.statistics.unit_inferences.update(dict.fromkeys(self.row_ms, 10))
        for name, (_, joules) in units.items():
            accounts[Unit(name)].joules[Phase.INFER, EnergyKind.MEASURED] = 10 * joules

    def send(self) -> asyncio.Future[InferenceResponse]:
        inputs = {"x": np.ones((1, 1), np.float32)}
        return self.dispatcher.submit(Call(InferenceRequest("m", inputs), inputs, 1))

    def finish(self) -> None:
        for unit, worker in self.workers.items():
            if worker.current is not None:
                worker.finish(self.row_ms[unit] * len(worker.rows) * MS)

    @property
    def running(self) -> Mapping[Unit, int]:
        return {unit: len(each.rows) for unit, each in self.workers.items() if each.current is not None}


@pytest.mark.parametrize(("objective_ms", "expected"), [(400, 15), (170, 8), (50, 2), (20, 1), (3, 1)])
async def test_batches_take_half_of_it_at_most(objective_ms: float, expected: int) -> None:
    bench = Bench(objective_ms, cpu=(10, 0.0))
    answers = [bench.send() for _ in range(16)]
    assert bench.running == {Unit.CPU: 1}
    bench.finish()
    assert bench.running == {Unit.CPU: expected}
    while bench.running:
        bench.finish()
    assert all(each.done() for each in answers)


@pytest.mark.parametrize(("objective_ms", "expected"), [(50, Unit.CPU), (3, Unit.GPU), (0.5, Unit.GPU)])
async def test_the_cheapest_unit_that_answers_in_time_computes(objective_ms: float, expected: Unit) -> None:
    bench = Bench(objective_ms, gpu=(1, 5.0), cpu=(4, 1.0))
    bench.send()
    assert bench.running == {expected: 1}
    bench.finish()


async def test_a_request_waits_for_the_cheap_unit_while_there_is_time() -> None:
    bench = Bench(50, gpu=(1, 5.0), cpu=(10, 1.0))
    for _ in range(3):
        bench.send()
    assert bench.running == {Unit.CPU: 1}
    bench.finish()
    assert bench.running == {Unit.CPU: 2}
    for _ in range(4):
        bench.send()
    # Two rows of 10 ms run, and four more would end in 60 ms.
    assert bench.running[Unit.GPU] >= 1
    while bench.running:
        bench.finish()


async def test_without_joules_the_soonest_unit_computes() -> None:
    bench = Bench(50, gpu=(1, 0.0), cpu=(4, 1.0))
    bench.send()
    assert bench.running == {Unit.GPU: 1}
    bench.finish()


@pytest.mark.parametrize(("objective_ms", "waits_ms"), [(50, 25), (100, 40), (0, 40)])
async def test_a_request_waits_half_of_it_at_most_for_others(objective_ms: float, waits_ms: int) -> None:
    bench = Bench(objective_ms, delay_us=40_000, cpu=(10, 0.0))
    bench.send()
    bench.clock.advance(waits_ms * MS - 1)
    assert not bench.running
    bench.clock.advance(1)
    assert bench.running == {Unit.CPU: 1}
    bench.finish()
    await bench.dispatcher.drain()


@pytest.mark.parametrize(
    ("launch_ms", "row_ms", "expected"), [(20, 0, 8), (20, 1, 2), (18, 8, 1), (6, 5, 2), (0, 5, 2)]
)
def test_rows_are_cut_only_as_far_as_fewer_take_a_shorter_time(launch_ms: int, row_ms: int, expected: int) -> None:
    lane = Lane(HandWorker(Doubler(), VirtualClock()), lambda lane, batch: None)
    for num_rows in (1, 2, 4, 8):
        for _ in range(3):
            lane.cost.record(num_rows, (launch_ms + row_ms * num_rows) * MS)
    # Half of the objective is 17 ms.
    assert Objective(34 * MS, lambda unit: 0.0).rows_within(lane, 8, 8) == expected
