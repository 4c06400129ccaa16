"""What a power mode changes at the dispatcher: the units, and how long requests wait for others."""

import asyncio
from typing import Any

import numpy as np
import pytest

from support.energy_meters import rail
from support.hand import Doubler, HandWorker
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.energy import EnergyKind, Phase
from triune.core.errors import InvalidArgumentError
from triune.core.power import EFFECTS, POWER_PARAMETER, Power, PowerMode, mode_of
from triune.core.requests import UNIT_PARAMETER, InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ledger import EnergyLedger
from triune.scheduling.dispatcher import Dispatcher

MS = 1_000_000
INFER = (Phase.INFER, EnergyKind.MEASURED)
LOW, BALANCED, HIGH = PowerMode.LOW_POWER, PowerMode.BALANCED, PowerMode.HIGH_PERFORMANCE
DELAY_NS = EFFECTS[LOW].min_delay_us * 1000


class Bench:
    def __init__(self, *units: Unit, mode: PowerMode = BALANCED, delay_us: int = 0) -> None:
        self.clock = VirtualClock()
        self.power = Power(mode)
        self.workers = {unit: HandWorker(Doubler(unit), self.clock) for unit in units}
        self.statistics = ModelStatistics()
        ledger = EnergyLedger(HandMeter([rail("cpu")], self.clock))
        self.accounts = {unit: ledger.account("m", 1, unit) for unit in units}
        self.dispatcher = Dispatcher(
            "m",
            1,
            BatchingPolicy(max_batch_size=4, is_dynamic=True, max_queue_delay_us=delay_us),
            ("y",),
            list(self.workers.values()),
            self.statistics,
            self.clock,
            accounts=self.accounts,
            power=self.power,
        )

    def send(self, **parameters: str) -> asyncio.Future[InferenceResponse]:
        inputs = {"x": np.ones((1, 1), np.float32)}
        return self.dispatcher.submit(Call(InferenceRequest("m", inputs, parameters=parameters), inputs, 1))

    @property
    def busy(self) -> set[Unit]:
        return {unit for unit, worker in self.workers.items() if worker.current is not None}


async def test_balanced_uses_all_units_at_once() -> None:
    bench = Bench(Unit.CPU, Unit.GPU)
    bench.send()
    bench.send()
    assert bench.busy == {Unit.CPU, Unit.GPU}


async def test_low_power_uses_one_unit() -> None:
    bench = Bench(Unit.CPU, Unit.GPU, mode=LOW)
    for _ in range(8):
        bench.send()
    bench.clock.advance(DELAY_NS)
    assert bench.busy == {Unit.CPU}, "the GPU draws more"
    bench.workers[Unit.CPU].finish(MS)
    bench.clock.advance(DELAY_NS)
    assert bench.busy == {Unit.CPU}


async def test_low_power_takes_the_unit_with_the_fewest_joules_a_row() -> None:
    bench = Bench(Unit.CPU, Unit.GPU, mode=LOW)
    bench.statistics.unit_inferences.update({Unit.CPU: 10, Unit.GPU: 10})
    bench.accounts[Unit.CPU].joules[INFER] = 5.0
    bench.accounts[Unit.GPU].joules[INFER] = 2.0
    bench.send()
    bench.clock.advance(DELAY_NS)
    assert bench.busy == {Unit.GPU}


async def test_joules_of_one_unit_alone_decide_nothing() -> None:
    bench = Bench(Unit.CPU, Unit.GPU, mode=LOW)
    bench.statistics.unit_inferences[Unit.CPU] = 10
    bench.accounts[Unit.CPU].joules[INFER] = 1000.0
    bench.send()
    bench.clock.advance(DELAY_NS)
    assert bench.busy == {Unit.CPU}


async def test_a_request_that_names_a_unit_gets_it_in_any_mode() -> None:
    bench = Bench(Unit.CPU, Unit.GPU, mode=LOW)
    bench.send(**{UNIT_PARAMETER: "gpu"})
    bench.clock.advance(DELAY_NS)
    assert bench.busy == {Unit.GPU}


async def test_low_power_waits_for_a_larger_batch_and_balanced_does_not() -> None:
    bench = Bench(Unit.CPU, mode=LOW)
    bench.send()
    assert bench.busy == set()
    bench.clock.advance(DELAY_NS // 2)
    bench.send()
    assert bench.busy == set()
    bench.clock.advance(DELAY_NS // 2)
    current = bench.workers[Unit.CPU].current
    assert current is not None
    assert current[0].num_rows == 2
    bench = Bench(Unit.CPU)
    bench.send()
    assert bench.busy == {Unit.CPU}


async def test_a_full_batch_waits_for_nothing() -> None:
    bench = Bench(Unit.CPU, mode=LOW)
    for _ in range(4):
        bench.send()
    assert bench.busy == {Unit.CPU}


async def test_a_longer_delay_of_the_config_is_kept() -> None:
    bench = Bench(Unit.CPU, mode=LOW, delay_us=20_000)
    bench.send()
    bench.clock.advance(DELAY_NS)
    assert bench.busy == set()
    bench.clock.advance(20 * MS - DELAY_NS)
    assert bench.busy == {Unit.CPU}


async def test_the_mode_changes_while_the_server_runs() -> None:
    bench = Bench(Unit.CPU, Unit.GPU)
    bench.power.ask(LOW)
    bench.send()
    bench.send()
    bench.clock.advance(DELAY_NS)
    assert bench.busy == {Unit.CPU}
    bench.power.ask(BALANCED)
    bench.send()
    assert bench.busy == {Unit.CPU, Unit.GPU}


async def test_one_request_may_have_its_own_mode() -> None:
    bench = Bench(Unit.CPU, Unit.GPU)
    # On balanced, the second request goes to the unit that is free.
    bench.send(**{POWER_PARAMETER: "low_power"})
    bench.send(**{POWER_PARAMETER: "low_power"})
    assert bench.busy == set()
    bench.clock.advance(DELAY_NS)
    assert bench.busy == {Unit.CPU}
    bench.send()
    assert bench.busy == {Unit.CPU, Unit.GPU}
    with pytest.raises(InvalidArgumentError, match="there is no power mode 'turbo'"):
        bench.send(**{POWER_PARAMETER: "turbo"})


def test_a_mode_that_is_nested_deeper_than_python_prints_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidArgumentError, match="there is no power mode of type list; there are high_performance"):
        mode_of(deep)


async def test_one_request_may_hurry_on_low_power() -> None:
    bench = Bench(Unit.CPU, Unit.GPU, mode=LOW)
    bench.send(**{POWER_PARAMETER: "high_performance"})
    bench.send(**{POWER_PARAMETER: "high_performance"})
    assert bench.busy == {Unit.CPU, Unit.GPU}


async def test_work_leaves_a_hot_unit() -> None:
    bench = Bench(Unit.CPU, Unit.GPU)
    bench.power.overrule("", {Unit.GPU: "it is at 95 C"})
    bench.send()
    bench.send()
    assert bench.busy == {Unit.CPU}
    bench.power.ask(HIGH)
    bench.send()
    assert bench.busy == {Unit.CPU, Unit.GPU}


async def test_a_model_on_hot_units_alone_is_served() -> None:
    bench = Bench(Unit.GPU)
    bench.power.overrule("", {Unit.GPU: "it is at 95 C"})
    bench.send()
    assert bench.busy == {Unit.GPU}


async def test_emulated_units_stay_out_in_any_mode() -> None:
    clock, power = VirtualClock(), Power(LOW)
    workers = [HandWorker(Doubler(unit), clock) for unit in (Unit.CPU, Unit.ANE)]
    policy = BatchingPolicy(max_batch_size=4, is_dynamic=True)
    dispatcher = Dispatcher("m", 1, policy, ("y",), workers, ModelStatistics(), clock, emulated=[Unit.ANE], power=power)
    inputs = {"x": np.ones((1, 1), np.float32)}
    dispatcher.submit(Call(InferenceRequest("m", inputs), inputs, 1))
    clock.advance(DELAY_NS)
    assert [worker.current is not None for worker in workers] == [True, False]
