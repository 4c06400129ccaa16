"""A unit whose hardware is lost while it computes: its requests go to other units, and none follows them there."""

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from support.hand import Doubler, HandWorker, value_of
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array
from triune.core.errors import UnavailableError, UnitLostError
from triune.core.requests import UNIT_PARAMETER, InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.scheduling.dispatcher import Dispatcher

GPU, CPU, ANE = Unit.GPU, Unit.CPU, Unit.ANE


class Losable(Doubler):
    """Its hardware can be lost."""

    is_lost = False

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if self.is_lost:
            raise UnitLostError("the GPU is lost")
        return super().run(inputs, outputs)


class Bench:
    def __init__(self, *units: Unit, **policy: object) -> None:
        self.clock = VirtualClock()
        self.statistics = ModelStatistics()
        self.workers = {unit: HandWorker(Losable(unit), self.clock) for unit in units}
        settings = BatchingPolicy(**{"max_batch_size": 2, "is_dynamic": True, **policy})
        workers = list(self.workers.values())
        self.dispatcher = Dispatcher("m", 1, settings, ["y"], workers, self.statistics, self.clock, [ANE])

    def send(self, value: float, **parameters: str) -> asyncio.Future[InferenceResponse]:
        inputs = {"x": np.full((1, 1), value, np.float32)}
        return self.dispatcher.submit(Call(InferenceRequest("m", inputs, parameters=parameters), inputs, 1))

    def lose(self, unit: Unit) -> None:
        self.workers[unit].executable.is_lost = True
        self.workers[unit].finish()


async def test_requests_go_to_other_units(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(GPU, CPU)
    first, second = bench.send(1), bench.send(2)
    waiting = [bench.send(value) for value in (3, 4)]
    bench.lose(GPU)
    assert not first.done()
    assert bench.statistics.lost == {GPU: "the GPU is lost"}
    assert "leaves 'gpu'" in caplog.text
    while bench.workers[CPU].current is not None:
        bench.workers[CPU].finish()
    assert [value_of(each) for each in (first, second, *waiting)] == [2, 4, 6, 8]
    # No other batch goes to the lost unit, although it would fail sooner than any other computes.
    more = [bench.send(value) for value in (5, 6, 7)]
    assert bench.workers[GPU].current is None
    while bench.workers[CPU].current is not None:
        bench.workers[CPU].finish()
    assert [value_of(each) for each in more] == [10, 12, 14]
    assert bench.statistics.num_pending == bench.statistics.num_waiting == 0
    assert bench.statistics.success.count == 7


async def test_requests_that_name_the_unit_fail_with_the_reason() -> None:
    bench = Bench(GPU, CPU)
    named = [bench.send(value, **{UNIT_PARAMETER: "gpu"}) for value in (1, 2, 3, 4)]
    other = bench.send(5)
    bench.lose(GPU)
    for each in named:
        with pytest.raises(UnitLostError, match="the GPU is lost"):
            await each
    with pytest.raises(UnavailableError, match="the GPU is lost"):
        bench.send(6, **{UNIT_PARAMETER: "gpu"})
    bench.workers[CPU].finish()
    assert value_of(other) == 10
    assert bench.statistics.num_pending == 0


async def test_without_another_unit_all_fail_and_emulated_ones_do_not_take_over() -> None:
    bench = Bench(GPU, ANE)
    futures = [bench.send(value) for value in range(3)]
    bench.lose(GPU)
    for each in futures:
        with pytest.raises(UnitLostError, match="the GPU is lost"):
            await each
    with pytest.raises(UnitLostError, match="the GPU is lost"):
        bench.send(1)
    named = bench.send(7, **{UNIT_PARAMETER: "ane"})
    bench.workers[ANE].finish()
    assert value_of(named) == 14
    assert bench.statistics.num_pending == 0


async def test_two_lanes_of_a_unit_are_lost_one_by_one() -> None:
    bench = Bench(GPU)
    second = HandWorker(Losable(GPU), bench.clock)
    workers = [bench.workers[GPU], second]
    bench.dispatcher = Dispatcher(
        "m", 1, BatchingPolicy(max_batch_size=1, is_dynamic=True), ["y"], workers, bench.statistics, bench.clock
    )
    futures = [bench.send(value) for value in (1, 2)]
    bench.lose(GPU)
    assert bench.statistics.lost == {}
    second.executable.is_lost = True
    second.finish()
    second.finish() if second.current else None
    assert set(bench.statistics.lost) == {GPU}
    for each in futures:
        with pytest.raises(UnitLostError):
            await each


async def test_answers_that_must_keep_their_order_fail() -> None:
    bench = Bench(GPU, CPU, preserve_ordering=True)
    first, second = bench.send(1), bench.send(2)
    bench.workers[CPU].finish()
    assert not second.done()
    bench.lose(GPU)
    with pytest.raises(UnitLostError):
        await first
    assert value_of(second) == 4
