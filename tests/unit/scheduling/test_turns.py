"""Dispatchers of several models that share the cores: each starts its batches when its turn has come."""

import asyncio

import numpy as np

from support.hand import Doubler, HandWorker
from triune.arbiter.arbiter import Arbiter
from triune.arbiter.pool import PATIENCE_NS
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.scheduling.dispatcher import Dispatcher

MS = 1_000_000


class Machine:
    """Two models, each with a worker on `cpu` and one on `amx`."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.arbiter = Arbiter(self.clock)
        self.workers: dict[str, dict[Unit, HandWorker]] = {}
        self.models = {name: self._model(name) for name in "ab"}

    def _model(self, name: str) -> Dispatcher:
        workers = {unit: HandWorker(Doubler(unit), self.clock) for unit in (Unit.CPU, Unit.AMX)}
        self.workers[name] = workers
        policy = BatchingPolicy(max_batch_size=8, is_dynamic=True)
        return Dispatcher(
            name, 1, policy, ["y"], list(workers.values()), ModelStatistics(), self.clock, arbiter=self.arbiter
        )

    def send(self, model: str, value: float) -> asyncio.Future[InferenceResponse]:
        x = np.full((1, 1), value, np.float32)
        return self.models[model].submit(Call(InferenceRequest(model, {"x": x}), {"x": x}, 1))

    @property
    def running(self) -> list[tuple[str, Unit]]:
        return [(name, unit) for name, units in self.workers.items() for unit, each in units.items() if each.current]

    def finish(self, model: str, after_ns: int = 2 * MS) -> None:
        next(each for each in self.workers[model].values() if each.current).finish(after_ns)


async def turn_of_loop() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_one_model_at_a_time_while_that_is_measured() -> None:
    machine = Machine()
    futures = [machine.send("a", 1), machine.send("b", 2), machine.send("a", 3), machine.send("b", 4)]
    assert machine.running == [("a", Unit.CPU)]
    machine.finish("a")
    await turn_of_loop()
    assert [name for name, _ in machine.running] == ["b"], "its clock is behind"
    for _ in range(4):
        for name, _ in machine.running:
            machine.finish(name)
        await turn_of_loop()
    assert [float(each.result().outputs["y"][0, 0]) for each in futures] == [2, 4, 6, 8]
    assert not machine.arbiter.pools[Unit.CPU].running


async def test_who_leaves_while_waiting_gives_the_turn_back() -> None:
    machine = Machine()
    machine.send("a", 1)
    leaving = machine.send("b", 2)
    leaving.cancel()
    await turn_of_loop()
    assert not machine.arbiter.pools[Unit.CPU].waiting
    machine.finish("a")
    await turn_of_loop()
    assert not machine.arbiter.pools[Unit.CPU].running
    machine.send("a", 3)
    assert [name for name, _ in machine.running] == ["a"]


async def test_who_leaves_when_the_turn_has_come_gives_it_back() -> None:
    machine = Machine()
    machine.send("a", 1)
    leaving = machine.send("b", 2)
    machine.finish("a")
    leaving.cancel()
    await turn_of_loop()
    assert machine.running == []
    assert not machine.arbiter.pools[Unit.CPU].running


async def test_a_model_that_hangs_does_not_stop_the_other() -> None:
    machine = Machine()
    machine.send("a", 1)
    waiting = machine.send("b", 2)
    machine.clock.advance(PATIENCE_NS)
    assert [name for name, _ in machine.running] == ["a", "b"]
    machine.finish("b")
    assert float(waiting.result().outputs["y"][0, 0]) == 4


async def test_a_model_that_is_unloaded_leaves_its_turn() -> None:
    machine = Machine()
    machine.send("a", 1)
    machine.send("b", 2).add_done_callback(lambda future: future.exception())
    await machine.models["b"].close()
    assert len(machine.arbiter.pools[Unit.CPU].shares) == 1
    machine.finish("a")
    await machine.models["a"].close()
    assert not machine.arbiter.pools[Unit.CPU].shares


async def test_two_units_of_one_model_share_the_cores() -> None:
    machine = Machine()
    futures = [machine.send("a", value) for value in range(1, 30)]
    assert machine.running == [("a", Unit.CPU)], "one at a time is measured first"
    while machine.running:
        machine.finish("a", 300 * MS)
        await turn_of_loop()
    assert [float(each.result().outputs["y"][0, 0]) for each in futures] == [2.0 * value for value in range(1, 30)]
