"""What a served model's calls take alone is recorded by the shapes of their inputs, and stored for plans."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from support.energy_meters import rail
from support.hand import POISON, Doubler, HandWorker
from triune.arbiter.arbiter import Arbiter
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ledger import EnergyLedger
from triune.planning.measured import MeasuredTime
from triune.scheduling.call_times import CallTimes
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.runner import TensorRunner
from triune.scheduling.worker import InlineWorker

MS = 1_000_000
ROW_MS = {Unit.CPU: 9, Unit.AMX: 2}


class Timed(Doubler):
    """Takes some time for each row."""

    def __init__(self, unit: Unit, clock: VirtualClock) -> None:
        super().__init__(unit)
        self.clock = clock
        self.row_ms = ROW_MS[unit]

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.clock.advance(self.row_ms * len(inputs["x"]) * MS)
        return super().run(inputs, outputs)


class Bench:
    def __init__(self, units: Sequence[Unit] = (Unit.AMX,), emulated: Sequence[Unit] = ()) -> None:
        self.clock = VirtualClock()
        self.stored: list[Sequence[MeasuredTime]] = []
        self.arbiter = Arbiter(self.clock)
        meter = HandMeter([rail("package", frozenset({Unit.CPU, Unit.AMX}))], self.clock)
        self.meter, self.ledger = meter, EnergyLedger(meter)
        self.workers = [HandWorker(Timed(unit, self.clock), self.clock) for unit in units]
        self.times = CallTimes(self.stored.append)
        self.dispatcher = Dispatcher(
            "m",
            1,
            BatchingPolicy(max_batch_size=8, is_dynamic=True, ragged_inputs=frozenset({"x"})),
            ("y",),
            self.workers,
            ModelStatistics(),
            self.clock,
            emulated,
            accounts={unit: self.ledger.account("m", 1, unit) for unit in units},
            arbiter=self.arbiter,
            times=self.times,
        )

    def send(self, *shape: int, value: float = 1.0) -> asyncio.Future[InferenceResponse]:
        inputs = {"x": np.full(shape, value, np.float32)}
        return self.dispatcher.submit(Call(InferenceRequest("m", inputs), inputs, shape[0]))

    def finish(self) -> Unit:
        (worker,) = [each for each in self.workers if each.current is not None]
        worker.finish()
        return worker.executable.unit

    def run(self, *shape: int, times: int = 1) -> None:
        for _ in range(times):
            self.send(*shape)
            self.finish()


async def test_the_median_of_calls_alone_is_stored_by_unit_and_shapes() -> None:
    bench = Bench([Unit.CPU, Unit.AMX])
    slow = bench.workers[1].executable
    bench.run(1, 5, times=6)
    slow.row_ms = 200
    bench.run(1, 5)
    slow.row_ms = ROW_MS[Unit.AMX]
    bench.run(3, 5, times=8)
    await bench.dispatcher.close()
    (stored,) = bench.stored
    assert {(each.unit, each.shapes["x"], each.ms) for each in stored if each.unit is Unit.AMX} == {
        (Unit.AMX, (1, 5), 2.0),
        (Unit.AMX, (3, 5), 6.0),
    }
    assert (Unit.CPU, (1, 5), 9.0, 3) in {(each.unit, each.shapes["x"], each.ms, each.num_calls) for each in stored}


async def test_requests_that_ran_together_count_with_their_rows() -> None:
    bench = Bench()
    bench.run(1, 5, times=3)
    for _ in range(4):
        bench.send(2, 5)
        bench.send(1, 5)
        bench.send(2, 5)
        bench.finish()
        bench.finish()
    (time,) = [each for each in bench.times.times() if each.shapes == {"x": (3, 5)}]
    assert (time.ms, time.num_calls) == (6.0, 4)
    await bench.dispatcher.close()


async def test_rows_that_were_filled_up_and_batches_that_failed_are_not_counted() -> None:
    bench = Bench()
    for _ in range(4):
        bench.send(1, 5)
        bench.send(1, 4)
        bench.send(1, 6)
        bench.finish()
        bench.finish()
    for _ in range(4):
        refused = bench.send(1, 7, value=POISON)
        bench.finish()
        with pytest.raises(InvalidArgumentError, match="poison"):
            await refused
    assert [each.shapes for each in bench.times.times()] == [{"x": (1, 5)}]
    await bench.dispatcher.close()


async def test_what_computed_beside_something_else_is_not_counted() -> None:
    bench = Bench()
    other = bench.arbiter.join("other", [Unit.CPU], lambda: None)[Unit.CPU]
    turn = other.start(Unit.CPU, 0)
    assert turn is not None
    # It has computed for so long that nobody waits for it any more.
    bench.clock.advance(300 * MS)
    bench.run(1, 5, times=8)
    assert bench.times.times() == []
    other.end(turn, 0)
    bench.run(1, 5, times=3)
    assert [(each.ms, each.num_calls) for each in bench.times.times()] == [(2.0, 3)]
    other.close()
    await bench.dispatcher.close()


async def test_emulated_units_and_instances_that_share_a_unit_are_not_counted() -> None:
    for bench in (Bench([Unit.AMX], [Unit.AMX]), Bench([Unit.AMX, Unit.AMX])):
        bench.run(1, 5, times=8)
        await bench.dispatcher.close()
        assert bench.stored == []


async def test_times_are_stored_while_the_model_serves() -> None:
    bench = Bench()
    bench.run(1, 5, times=15)
    assert bench.stored == []
    bench.run(1, 5)
    wait_for(bench, 1)
    bench.run(1, 5, times=15)
    bench.clock.advance(60_000 * MS)
    bench.run(1, 5)
    wait_for(bench, 2)
    assert [stored[0].num_calls for stored in bench.stored] == [16, 32]
    await bench.dispatcher.close()
    assert len(bench.stored) == 2, "nothing was new"


def wait_for(bench: Bench, num_stored: int) -> None:
    for _ in range(1000):
        if len(bench.stored) >= num_stored:
            return
        time.sleep(0.01)
    pytest.fail("nothing was stored")


async def test_joules_of_busy_times_are_those_of_the_calls() -> None:
    bench = Bench()
    bench.run(1, 5, times=10)
    bench.meter.feed("package", 0.6)
    bench.ledger.sample()
    (time,) = bench.times.times()
    assert time.joules == pytest.approx(0.06)
    # A meter that is read after a long pause counts what the unit drew meanwhile.
    bench.run(1, 5, times=10)
    bench.clock.advance(1000 * MS)
    bench.meter.feed("package", 50.0)
    bench.ledger.sample()
    (time,) = bench.times.times()
    assert time.joules == pytest.approx(0.06)
    await bench.dispatcher.close()


@pytest.mark.parametrize("is_busy", [False, True])
async def test_some_runs_of_a_small_model_are_recorded_while_nothing_else_computes(*, is_busy: bool) -> None:
    clock = VirtualClock()
    arbiter, executable = Arbiter(clock), Timed(Unit.AMX, clock)
    times = CallTimes(lambda times: None)
    worker = InlineWorker(TensorRunner(executable, clock))
    dispatcher = Dispatcher(
        "m",
        1,
        BatchingPolicy(max_batch_size=8),
        ("y",),
        [worker],
        ModelStatistics(),
        clock,
        arbiter=arbiter,
        times=times,
    )
    if is_busy:
        assert arbiter.join("other", [Unit.CPU], lambda: None)[Unit.CPU].start(Unit.CPU, 0) is not None
    inputs = {"x": np.ones((2, 5), np.float32)}
    for _ in range(100):
        await dispatcher.submit(Call(InferenceRequest("m", inputs), inputs, 2))
    found = [(each.unit, each.shapes, each.ms, each.num_calls) for each in times.times()]
    assert found == ([] if is_busy else [(Unit.AMX, {"x": (2, 5)}, 4.0, 6)])
    await dispatcher.close()
