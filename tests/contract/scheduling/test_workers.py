"""What every worker does, whoever's thread it runs on."""

import asyncio
import threading
import weakref
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest

from support.hand import POISON, Doubler, HandWorker
from triune.config.policy import BatchingPolicy
from triune.core.clock import MonotonicClock, VirtualClock
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.hosting import HostedExecutable
from triune.scheduling.batch import Batch
from triune.scheduling.batcher import FormedBatch
from triune.scheduling.queue import Pending
from triune.scheduling.runner import TensorRunner
from triune.scheduling.worker import BatchCallback, InlineWorker, QuickWorker, ThreadWorker, Worker


class HostedDoubler(HostedExecutable):
    """A Doubler in a process of its own."""

    def __init__(self) -> None:
        super().__init__(Doubler, "doubler")

    @property
    def is_closed(self) -> bool:
        return self.pid is None


class TurnedWorker(HandWorker):
    """A HandWorker that finishes its batch in the loop's next turn."""

    def start(self, batch: Batch, done: BatchCallback) -> None:
        super().start(batch, done)
        asyncio.get_running_loop().call_soon(self.finish)


def by_hand() -> tuple[Worker, Doubler]:
    clock, executable = VirtualClock(), Doubler()
    clock.advance(1)
    return TurnedWorker(executable, clock), executable


def slow() -> tuple[Worker, Doubler]:
    """A QuickWorker that has left the loop's thread for good, since a repetition took 2 ms."""
    clock, executable = VirtualClock(), Doubler()
    clock.advance(1)
    worker = QuickWorker(TensorRunner(executable, clock), "test")
    worker.leave(2_000_000, lambda: clock.advance(2_000_000))
    return worker, executable


Maker: TypeAlias = Callable[[], tuple[Worker, Doubler | HostedDoubler]]


def with_worker(make: Callable[[TensorRunner], Worker], executable: type[Doubler] | type[HostedDoubler]) -> Maker:
    def made() -> tuple[Worker, Doubler | HostedDoubler]:
        held = executable()
        return make(TensorRunner(held)), held

    return made


MAKERS: dict[str, Maker] = {
    "inline": with_worker(InlineWorker, Doubler),
    "thread": with_worker(lambda runner: ThreadWorker(runner, "test"), Doubler),
    "quick": with_worker(lambda runner: QuickWorker(runner, "test"), Doubler),
    "quick, that is slow": slow,
    "by hand": by_hand,
    "process": with_worker(lambda runner: ThreadWorker(runner, "test"), HostedDoubler),
}


@pytest.fixture(params=MAKERS)
def maker(request: pytest.FixtureRequest) -> Maker:
    return MAKERS[request.param]


def batch_of(*values: float) -> Batch:
    pendings = []
    for value in values:
        inputs: dict[str, Array] = {"x": np.full((1, 2), value, np.float32)}
        future = asyncio.get_running_loop().create_future()
        pendings.append(Pending(Call(InferenceRequest("doubler", inputs), inputs, 1), future, 0))
    return Batch(FormedBatch.of(pendings, len(values)), ["y"], BatchingPolicy(max_batch_size=8))


async def run(worker: Worker, batch: Batch) -> list[threading.Thread]:
    """The threads on which `done` was called, with this batch."""
    calls: list[threading.Thread] = []
    finished = asyncio.Event()

    def done(given: Batch) -> None:
        assert given is batch
        calls.append(threading.current_thread())
        finished.set()

    worker.start(batch, done)
    assert bool(calls) == worker.is_inline
    await asyncio.wait_for(finished.wait(), 60)
    await asyncio.sleep(0.01)
    return calls


async def test_each_batch_is_done_once_on_the_loops_thread(maker: Maker) -> None:
    worker, _ = maker()
    for values in ((1.0,), (2.0, 3.0), (4.0, 5.0, 6.0)):
        batch = batch_of(*values)
        assert await run(worker, batch) == [threading.current_thread()]
        assert [answer["y"].tolist() for answer in batch.answers] == [[[2 * value] * 2] for value in values]  # type: ignore[index]
        assert 0 < batch.started_ns <= batch.ended_ns <= MonotonicClock().now_ns()
    await asyncio.to_thread(worker.close)


async def test_a_failure_is_an_answer_and_the_worker_goes_on(maker: Maker) -> None:
    worker, _ = maker()
    batch = batch_of(1.0, POISON)
    await run(worker, batch)
    good, bad = batch.answers
    assert isinstance(bad, InvalidArgumentError)
    assert not isinstance(good, InvalidArgumentError)
    batch = batch_of(7.0)
    await run(worker, batch)
    assert batch.answers[0]["y"][0, 0] == 14  # type: ignore[index]
    await asyncio.to_thread(worker.close)


async def test_close_frees_the_executable(maker: Maker) -> None:
    worker, executable = maker()
    assert worker.runner.executable is executable
    await run(worker, batch_of(1.0))
    assert not executable.is_closed
    await asyncio.to_thread(worker.close)
    assert executable.is_closed


async def test_close_waits_for_the_running_batch_and_may_come_again(maker: Maker) -> None:
    worker, executable = maker()
    batch = batch_of(3.0)
    worker.start(batch, lambda _: None)
    await asyncio.to_thread(worker.close)
    assert batch.answers[0]["y"].tolist() == [[6.0, 6.0]]  # type: ignore[index]
    assert executable.is_closed
    await asyncio.to_thread(worker.close)


async def test_nothing_holds_what_a_batch_gave(maker: Maker) -> None:
    worker, _ = maker()
    batch = batch_of(1.0)
    await run(worker, batch)
    (answer,) = batch.answers
    assert isinstance(answer, dict)
    gone = weakref.ref(answer["y"])
    del batch, answer
    async with asyncio.timeout(60):
        while gone() is not None:
            await asyncio.sleep(0.01)
    worker.close()
