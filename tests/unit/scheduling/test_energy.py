"""Batches are charged with the energy of the unit that ran them, in the time that it ran."""

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from support.energy_meters import rail
from support.hand import POISON, Doubler, HandWorker
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array
from triune.core.energy import Bill, EnergyKind, Phase, report_of
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ledger import EnergyLedger
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.runner import TensorRunner
from triune.scheduling.worker import InlineWorker, Worker

MS = 1_000_000
INFER = (Phase.INFER, EnergyKind.MEASURED)


class SlowDoubler(Doubler):
    """Takes 20 ms of the clock."""

    def __init__(self, clock: VirtualClock, unit: Unit = Unit.CPU) -> None:
        super().__init__(unit)
        self.clock = clock

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.clock.advance(20 * MS)
        return super().run(inputs, outputs)


class Bench:
    """A dispatcher whose machine uses 1 W on `cpu`, and 10 W on `gpu`."""

    def __init__(self, *units: Unit, is_inline: bool = False) -> None:
        self.clock = VirtualClock()
        self.meter = HandMeter([rail("cpu"), rail("gpu", frozenset({Unit.GPU}))], self.clock)
        self.ledger = EnergyLedger(self.meter)
        self.fed_ns = 0
        self.accounts = {unit: self.ledger.account("doubler", 1, unit) for unit in units}
        self.workers: list[Worker] = [self._worker(unit, is_inline=is_inline) for unit in units]
        self.statistics = ModelStatistics()
        self.dispatcher = Dispatcher(
            "doubler",
            1,
            BatchingPolicy(max_batch_size=4, is_dynamic=True),
            ("y",),
            self.workers,
            self.statistics,
            self.clock,
            accounts=self.accounts,
        )

    def _worker(self, unit: Unit, *, is_inline: bool) -> Worker:
        if is_inline:
            return InlineWorker(TensorRunner(SlowDoubler(self.clock, unit), self.clock))
        return HandWorker(Doubler(unit), self.clock)

    def send(self, value: float = 1, rows: int = 1, bill: Bill | None = None) -> asyncio.Future[InferenceResponse]:
        inputs = {"x": np.full((rows, 1), value, np.float32)}
        return self.dispatcher.submit(Call(InferenceRequest("doubler", inputs), inputs, rows, bill=bill))

    def sample(self) -> None:
        seconds = (self.clock.now_ns() - self.fed_ns) / 1e9
        self.fed_ns = self.clock.now_ns()
        self.meter.feed("cpu", seconds)
        self.meter.feed("gpu", 10 * seconds)
        self.ledger.sample()
        self.ledger.check()

    def idle(self, name: str) -> float:
        (found,) = [each.totals.idle for each in self.ledger.rails if each.rail.name == name]
        return found


async def test_a_batch_is_charged_for_its_time_and_the_rest_is_idle() -> None:
    bench = Bench(Unit.CPU)
    bench.clock.advance(10 * MS)
    bench.send()
    bench.workers[0].finish(30 * MS)  # type: ignore[attr-defined]
    bench.clock.advance(60 * MS)
    bench.sample()
    assert bench.accounts[Unit.CPU].joules == {INFER: pytest.approx(0.03)}
    assert bench.idle("cpu") == pytest.approx(0.07)
    assert bench.idle("gpu") == pytest.approx(1.0)
    assert bench.statistics.accounts is bench.accounts


async def test_many_quick_batches_are_charged_by_their_time() -> None:
    bench = Bench(Unit.CPU)
    for _ in range(100):
        bench.send()
        bench.workers[0].finish(MS // 2)  # type: ignore[attr-defined]
        bench.clock.advance(MS // 2)
    bench.sample()
    assert bench.accounts[Unit.CPU].joules == {INFER: pytest.approx(0.05, rel=0.02)}
    bill = Bill()
    bench.send(bill=bill)
    bench.workers[0].finish(MS // 2)  # type: ignore[attr-defined]
    bench.clock.advance(MS // 2)
    bench.sample()
    assert (await report_of([bill]))["joules"] == pytest.approx(0.0005)
    assert bench.accounts[Unit.CPU].joules == {INFER: pytest.approx(0.0505, rel=0.02)}


async def test_a_long_batch_after_quick_ones_is_charged_once() -> None:
    bench = Bench(Unit.CPU)
    for milliseconds in (1, 1, 60, 60):
        bench.send()
        bench.workers[0].finish(milliseconds * MS)  # type: ignore[attr-defined]
    bench.clock.advance(78 * MS)
    bench.sample()
    assert bench.accounts[Unit.CPU].joules == {INFER: pytest.approx(0.122, rel=0.2)}


async def test_each_unit_is_charged_with_its_own_energy() -> None:
    bench = Bench(Unit.CPU, Unit.GPU)
    bench.send()
    bench.send()
    for worker in bench.workers:
        worker.finish(50 * MS)  # type: ignore[attr-defined]
    bench.sample()
    assert sorted(account.joules[INFER] for account in bench.accounts.values()) == pytest.approx([0.05, 1.0])


async def test_requests_of_a_batch_pay_by_rows() -> None:
    bench = Bench(Unit.CPU)
    bench.send()
    bills = [Bill(), None, Bill()]
    for rows, bill in zip((1, 1, 2), bills, strict=True):
        bench.send(rows=rows, bill=bill)
    worker = bench.workers[0]
    worker.finish(10 * MS)  # type: ignore[attr-defined]
    worker.finish(40 * MS)  # type: ignore[attr-defined]
    bench.sample()
    reports = [await report_of([bill]) for bill in bills if bill is not None]
    assert [each["joules"] for each in reports] == pytest.approx([0.01, 0.02])
    assert bench.accounts[Unit.CPU].joules == {INFER: pytest.approx(0.05)}


async def test_a_batch_that_runs_is_charged_before_it_ends() -> None:
    bench = Bench(Unit.CPU)
    bench.send()
    bench.clock.advance(100 * MS)
    bench.sample()
    assert bench.accounts[Unit.CPU].joules == {INFER: pytest.approx(0.1)}


async def test_a_batch_that_fails_is_charged_too() -> None:
    bench = Bench(Unit.CPU)
    future = bench.send(POISON)
    bench.workers[0].finish(10 * MS)  # type: ignore[attr-defined]
    with pytest.raises(InvalidArgumentError):
        await future
    bench.clock.advance(90 * MS)
    bench.sample()
    assert bench.idle("cpu") == pytest.approx(0.1 - bench.accounts[Unit.CPU].joules[INFER])
    assert bench.accounts[Unit.CPU].joules[INFER] > 0


async def test_requests_that_run_on_the_event_loop_are_charged() -> None:
    bench = Bench(Unit.CPU, is_inline=True)
    await bench.send()
    await bench.send()
    bench.clock.advance(60 * MS)
    bench.sample()
    assert bench.accounts[Unit.CPU].joules == {INFER: pytest.approx(0.04)}
    assert bench.idle("cpu") == pytest.approx(0.06)


async def test_a_request_on_the_event_loop_that_asks_has_its_bill() -> None:
    bench, bill = Bench(Unit.CPU, is_inline=True), Bill()
    await bench.send(bill=bill)
    bench.clock.advance(80 * MS)
    bench.sample()
    assert await report_of([bill]) == {"kind": "measured", "joules": pytest.approx(0.02)}
    assert bench.accounts[Unit.CPU].joules == {INFER: pytest.approx(0.02)}


async def test_a_dispatcher_without_accounts_charges_nobody() -> None:
    clock = VirtualClock()
    worker = HandWorker(Doubler(), clock)
    statistics = ModelStatistics()
    dispatcher = Dispatcher("doubler", 1, BatchingPolicy(max_batch_size=4), ("y",), [worker], statistics, clock)
    inputs = {"x": np.ones((1, 1), np.float32)}
    bill = Bill()
    future = dispatcher.submit(Call(InferenceRequest("doubler", inputs), inputs, 1, bill=bill))
    worker.finish(MS)
    await future
    assert statistics.accounts == {}
    assert (await report_of([bill]))["kind"] == "unavailable"
