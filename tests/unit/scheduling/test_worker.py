import asyncio
import threading
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from support.hand import POISON, Doubler
from triune.config.policy import BatchingPolicy
from triune.core.clock import MonotonicClock, VirtualClock
from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.runner import TensorRunner
from triune.scheduling.worker import QuickWorker, ThreadWorker

MS = 1_000_000


class Searching(Doubler):
    """Takes as many milliseconds as its input says, and half a second to find POISON.

    Attributes:
        threads: the threads of the runs, in order.
        pauses_ms: pauses of the process, one in each of the next runs.
        gate: runs outside the main thread wait until it is set.
    """

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.clock = clock
        self.threads: list[threading.Thread] = []
        self.pauses_ms: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.threads.append(threading.current_thread())
        if threading.current_thread() is not threading.main_thread():
            assert self.gate.wait(60)
        if self.pauses_ms:
            self.clock.advance(self.pauses_ms.pop() * MS)
        largest = int(inputs["x"].max())
        self.clock.advance((500 if largest == POISON else largest) * MS)
        return super().run(inputs, outputs)


class Bench:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.executable = Searching(self.clock)
        self.worker = QuickWorker(TensorRunner(self.executable, self.clock), "searching-1")
        policy = BatchingPolicy(max_batch_size=8, is_dynamic=True)
        self.statistics = ModelStatistics()
        self.dispatcher = Dispatcher("searching", 1, policy, ["y"], [self.worker], self.statistics, self.clock)

    def send(self, num_ms: float) -> asyncio.Future[InferenceResponse]:
        x = np.full((1, 1), num_ms, np.float32)
        return self.dispatcher.submit(Call(InferenceRequest("searching", {"x": x}), {"x": x}, 1))


async def test_a_batch_that_holds_the_loop_is_the_last_one_there() -> None:
    bench = Bench()
    assert bench.send(0).done()
    assert bench.send(500).result().outputs["y"] == 1000
    assert not bench.worker.is_inline
    future = bench.send(500)
    assert not future.done()
    waiting = [bench.send(3), bench.send(4)]
    answers = await asyncio.wait_for(asyncio.gather(future, *waiting), 60)
    assert [float(each.outputs["y"][0, 0]) for each in answers] == [1000, 6, 8]
    loop_thread = threading.current_thread()
    # The first two ran on the loop; the thread repeated the second twice, and ran what came after.
    assert [each is loop_thread for each in bench.executable.threads] == [True, True, False, False, False, False]
    assert not bench.worker.is_inline
    assert bench.statistics.num_pending == 0
    await bench.dispatcher.close()
    assert bench.executable.is_closed
    assert not bench.executable.threads[-1].is_alive()


async def test_a_pause_now_and_then_moves_nobody() -> None:
    bench = Bench()
    for _ in range(20):
        bench.send(15)
        for _ in range(20):
            bench.send(0)
    assert bench.worker.is_inline
    for _ in range(30):
        bench.send(2)
    assert not bench.worker.is_inline
    await asyncio.wait_for(bench.dispatcher.close(), 60)


async def test_after_a_long_pause_the_model_returns_to_the_loop() -> None:
    bench = Bench()
    for _ in range(3):
        bench.executable.pauses_ms = [300]
        assert bench.send(0).done()
        assert not bench.worker.is_inline
        future = bench.send(0)
        assert not future.done(), "the batch waits for its turn on the thread"
        await asyncio.wait_for(future, 60)
        assert bench.worker.is_inline
        assert bench.send(1).done()
    await asyncio.wait_for(bench.dispatcher.close(), 60)


async def test_a_pause_while_the_late_batch_is_repeated_counts_for_nothing() -> None:
    bench = Bench()
    bench.executable.pauses_ms = [300, 300]
    bench.send(0)
    await asyncio.wait_for(bench.send(0), 60)
    assert bench.worker.is_inline
    await asyncio.wait_for(bench.dispatcher.close(), 60)


async def test_the_model_does_not_return_while_a_batch_runs_on_its_thread() -> None:
    bench = Bench()
    bench.executable.pauses_ms = [300]
    bench.send(0)
    bench.executable.gate.clear()
    futures = [bench.send(0) for _ in range(20)]
    await asyncio.sleep(0.05)
    assert not bench.worker.is_inline
    bench.executable.gate.set()
    await asyncio.wait_for(asyncio.gather(*futures), 60)
    assert bench.worker.is_inline
    await asyncio.wait_for(bench.dispatcher.close(), 60)


async def test_one_that_fails_late_is_moved_as_well() -> None:
    bench = Bench()
    future = bench.send(POISON)
    assert not bench.worker.is_inline
    with pytest.raises(InvalidArgumentError, match="poison"):
        await asyncio.wait_for(future, 60)
    await bench.dispatcher.close()


async def test_closing_one_that_never_moved() -> None:
    bench = Bench()
    await bench.dispatcher.close()
    assert bench.executable.is_closed


class Panic(BaseException):
    """What a library that is written in Rust raises: no Exception."""


async def test_a_panic_of_a_library_is_the_answer_and_the_worker_goes_on() -> None:
    class Panicking(Doubler):
        def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
            if np.any(inputs["x"] == POISON):
                raise Panic("explicit panic")
            return super().run(inputs, outputs)

    worker = ThreadWorker(TensorRunner(Panicking()), "panicking")
    dispatcher = Dispatcher("m", 1, BatchingPolicy(), ["y"], [worker], ModelStatistics(), MonotonicClock())
    for value in (POISON, 2.0, POISON, 3.0):
        x = np.full((1, 1), value, np.float32)
        answer = dispatcher.submit(Call(InferenceRequest("m", {"x": x}), {"x": x}, 1))
        if value == POISON:
            with pytest.raises(InternalError, match="Panic: explicit panic"):
                await asyncio.wait_for(answer, 60)
        else:
            assert (await asyncio.wait_for(answer, 60)).outputs["y"] == 2 * value
    await dispatcher.close()
