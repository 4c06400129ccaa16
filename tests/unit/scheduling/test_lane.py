"""Requests that name a unit, and emulated units, which wait for that."""

import asyncio

import numpy as np
import pytest

from support.hand import Doubler, HandWorker
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.errors import InvalidArgumentError
from triune.core.requests import UNIT_PARAMETER, InferenceRequest, InferenceResponse, Parameter
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.runner import TensorRunner
from triune.scheduling.worker import InlineWorker


class Bench:
    def __init__(self, *units: Unit, emulated: tuple[Unit, ...] = (Unit.ANE,)) -> None:
        self.clock = VirtualClock()
        self.workers = {unit: HandWorker(Doubler(unit), self.clock) for unit in units}
        policy = BatchingPolicy(max_batch_size=8, is_dynamic=True)
        self.statistics = ModelStatistics()
        workers = list(self.workers.values())
        self.dispatcher = Dispatcher("doubler", 1, policy, ["y"], workers, self.statistics, self.clock, emulated)

    def send(self, value: float, unit: Parameter | None = None) -> asyncio.Future[InferenceResponse]:
        x = np.full((1, 1), value, np.float32)
        parameters = {} if unit is None else {UNIT_PARAMETER: unit}
        return self.dispatcher.submit(Call(InferenceRequest("doubler", {"x": x}, parameters=parameters), {"x": x}, 1))

    def running(self, unit: Unit) -> list[float]:
        return self.workers[unit].rows if self.workers[unit].current else []


async def test_an_emulated_unit_takes_only_what_names_it() -> None:
    bench = Bench(Unit.CPU, Unit.ANE)
    futures = [bench.send(value) for value in range(4)]
    assert (bench.running(Unit.CPU), bench.running(Unit.ANE)) == ([0], [])
    futures.append(bench.send(10, "ane"))
    assert bench.running(Unit.ANE) == [10]
    futures += [bench.send(11, "ane"), bench.send(4)]
    bench.workers[Unit.CPU].finish()
    # Those that wait for the emulated unit hold nobody up, and are in nobody's batch.
    assert (bench.running(Unit.CPU), bench.running(Unit.ANE)) == ([1, 2, 3, 4], [10])
    bench.workers[Unit.ANE].finish()
    assert bench.running(Unit.ANE) == [11]
    bench.workers[Unit.ANE].finish()
    bench.workers[Unit.CPU].finish()
    assert [float(each.result().outputs["y"][0, 0]) for each in futures] == [0, 2, 4, 6, 20, 22, 8]
    assert bench.statistics.num_pending == 0


async def test_a_model_on_emulated_units_only_takes_everything() -> None:
    bench = Bench(Unit.ANE)
    bench.send(1)
    assert bench.running(Unit.ANE) == [1]
    bench.workers[Unit.ANE].finish()


async def test_a_request_may_name_any_unit_of_the_model() -> None:
    bench = Bench(Unit.AMX, Unit.CPU)
    first, second = bench.send(1, "cpu"), bench.send(2, "cpu")
    assert (bench.running(Unit.CPU), bench.running(Unit.AMX)) == ([1], [])
    third = bench.send(3)
    assert bench.running(Unit.AMX) == [3]
    bench.workers[Unit.CPU].finish()
    assert bench.running(Unit.CPU) == [2]
    bench.workers[Unit.CPU].finish()
    bench.workers[Unit.AMX].finish()
    assert [float(each.result().outputs["y"][0, 0]) for each in (first, second, third)] == [2, 4, 6]


@pytest.mark.parametrize("name", ["gpu", "npu", 3, True])
async def test_a_unit_that_the_model_is_not_on_is_refused(name: Parameter) -> None:
    bench = Bench(Unit.CPU, Unit.ANE)
    with pytest.raises(InvalidArgumentError, match="model 'doubler' is served on ane, cpu"):
        bench.send(1, name)
    assert bench.statistics.num_pending == 0


async def test_a_lone_inline_worker_looks_at_the_unit_too() -> None:
    x = np.ones((1, 1), np.float32)
    worker = InlineWorker(TensorRunner(Doubler()))
    dispatcher = Dispatcher("doubler", 1, BatchingPolicy(), ["y"], [worker], ModelStatistics(), VirtualClock())
    for name in ("cpu", "ane"):
        request = InferenceRequest("doubler", {"x": x}, parameters={UNIT_PARAMETER: name})
        if name == "cpu":
            assert dispatcher.submit(Call(request, {"x": x}, 1)).result().outputs["y"] == 2
        else:
            with pytest.raises(InvalidArgumentError, match="served on cpu"):
                dispatcher.submit(Call(request, {"x": x}, 1))
