import asyncio
import threading

import numpy as np
import pytest

from support.hand import DETECTIONS, POISON, Bench, Doubler, value_of
from triune.config.policy import BatchingPolicy, QueuePolicy, TimeoutAction
from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError, NotRunError, UnavailableError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call, Finisher
from triune.core.statistics import FailureReason
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.runner import TensorRunner
from triune.scheduling.worker import ThreadWorker

MS = 1_000_000


async def settle() -> None:
    """Let the loop make the calls that are due."""
    for _ in range(3):
        await asyncio.sleep(0)


# Cancelling first: it must never delay or lose another request.


async def test_cancelling_a_waiting_request_leaves_the_others() -> None:
    bench = Bench()
    first = bench.send(1)
    waiting = [bench.send(value) for value in (2, 3, 4)]
    waiting[1].cancel()
    bench.finish()
    await settle()
    assert bench.rows == [2, 4]
    bench.finish()
    assert [value_of(future) for future in (first, waiting[0], waiting[2])] == [2, 4, 8]
    await settle()
    assert bench.statistics.num_pending == 0
    assert bench.statistics.failures[FailureReason.CANCELED] == 1
    assert bench.statistics.success.count == 3


async def test_cancelling_a_running_request_leaves_its_batch() -> None:
    bench = Bench()
    bench.send(0)
    inside = [bench.send(value) for value in (1, 2, 3)]
    bench.finish()
    assert bench.rows == [1, 2, 3]
    inside[0].cancel()
    await settle()
    bench.finish()
    assert [value_of(future) for future in inside[1:]] == [4, 6]
    assert bench.statistics.failures[FailureReason.CANCELED] == 1
    assert bench.statistics.num_pending == 0


async def test_cancelled_before_the_loop_heard_of_it() -> None:
    bench = Bench()
    bench.send(0)
    waiting = [bench.send(value) for value in (1, 2)]
    waiting[0].cancel()
    bench.finish()  # the cancelled future's callback has not run yet
    assert bench.rows == [2]
    bench.finish()
    await settle()
    assert bench.statistics.num_pending == 0
    assert bench.statistics.failures[FailureReason.CANCELED] == 1


async def test_cancelling_every_waiting_request_frees_the_queue() -> None:
    bench = Bench(default_queue_policy=QueuePolicy(max_queue_size=2))
    bench.send(0)
    assert (bench.statistics.num_pending, bench.statistics.num_waiting) == (1, 0), "what runs does not wait"
    waiting = [bench.send(value) for value in (1, 2)]
    assert (bench.statistics.num_pending, bench.statistics.num_waiting) == (3, 2)
    with pytest.raises(UnavailableError, match="^Exceeds maximum queue size of model 'doubler', 2: "):
        bench.send(3)
    for future in waiting:
        future.cancel()
    await settle()
    assert (bench.statistics.num_pending, bench.statistics.num_waiting) == (1, 0)
    bench.send(4)
    bench.finish()
    assert bench.rows == [4]


async def test_cancelling_the_oldest_keeps_the_batch_delay_of_the_next() -> None:
    bench = Bench(max_queue_delay_us=1000)
    first = bench.send(1)
    bench.clock.advance(600_000)
    second = bench.send(2)
    first.cancel()
    await settle()
    bench.clock.advance(500_000)
    assert not bench.is_busy  # the second came 0.5 ms ago and may wait 1 ms
    bench.clock.advance(500_000)
    assert bench.rows == [2]
    bench.finish()
    assert value_of(second) == 4


async def test_one_poisoned_request_fails_alone() -> None:
    bench = Bench()
    bench.send(0)
    futures = [bench.send(value) for value in (1, POISON, 3)]
    bench.finish()
    bench.finish()
    assert value_of(futures[0]) == 2
    assert value_of(futures[2]) == 6
    with pytest.raises(InvalidArgumentError, match="poison"):
        futures[1].result()
    assert bench.statistics.failures[FailureReason.BACKEND] == 1
    assert bench.statistics.num_executions == 1 + 4


async def test_memory_that_is_not_there_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: object, *_: object) -> dict[str, Array]:
        raise MemoryError

    monkeypatch.setattr(Doubler, "run", run)
    bench = Bench()
    future = bench.send(1)
    bench.finish()
    with pytest.raises(UnavailableError, match="not the memory for a request to model 'doubler' now"):
        future.result()


# A worker whose process is gone refuses: nothing ran.


def refusing(*_: object) -> dict[str, Array]:
    raise NotRunError("the worker process was given up")


async def test_what_was_not_run_counts_as_no_execution() -> None:
    bench = Bench()
    bench.workers[0].executable.run = refusing
    bench.send(0)
    futures = [bench.send(value) for value in (1, 2, 3)]
    bench.finish()
    bench.finish()
    for future in futures:
        with pytest.raises(UnavailableError, match="given up"):
            future.result()
    assert bench.statistics.fail.count == bench.statistics.failures[FailureReason.BACKEND] == 4
    assert bench.statistics.num_executions == 0
    assert not bench.statistics.batches
    assert not bench.statistics.unit_inferences


async def test_a_worker_that_refuses_at_once_is_not_the_fastest() -> None:
    bench = Bench(2, max_batch_size=1)
    fast, slow = bench.workers
    bench.send(0)
    bench.send(0)
    fast.finish(3 * MS)
    slow.finish(5 * MS)
    slow.executable.run = refusing
    for _ in range(50):
        bench.send(1)
        bench.send(2)
        assert (fast.rows, slow.rows) == ([1], [2])
        slow.finish()
        fast.finish(3 * MS)


# Rows: an answer is made of those of its own request, or it is an error.


async def test_rows_that_are_not_the_batchs_are_an_error_of_each_alone() -> None:
    bench = Bench()
    bench.send(0)
    futures = [bench.send(value) for value in (1, DETECTIONS, 3)]
    bench.finish()
    bench.finish()
    assert [value_of(futures[place]) for place in (0, 2)] == [2, 6]
    with pytest.raises(InternalError, match=r"output 'y' the shape \[2,1\]: 2 rows for 1 rows of input"):
        futures[1].result()
    assert bench.statistics.failures[FailureReason.BACKEND] == 1


async def test_once_a_batch_had_other_rows_nothing_is_joined_any_more() -> None:
    """Two rows of detections in a batch of two would be dealt to both of its requests."""
    bench = Bench()
    bench.send(0)
    futures = [bench.send(value) for value in (1, 2, DETECTIONS)]
    bench.finish()
    bench.finish()
    assert [value_of(future) for future in futures[:2]] == [2, 4]
    bench.send(0)
    futures = [bench.send(value) for value in (1, DETECTIONS)]
    bench.finish()
    assert bench.rows == [1]
    bench.finish()
    assert bench.rows == [DETECTIONS]
    bench.finish()
    assert value_of(futures[0]) == 2
    with pytest.raises(InternalError, match="2 rows for 1 rows of input"):
        futures[1].result()


async def test_without_a_batch_dimension_outputs_may_have_any_rows() -> None:
    bench = Bench(max_batch_size=0, is_dynamic=False)
    future = bench.send(DETECTIONS)
    bench.finish()
    assert future.result().outputs["y"].shape == (2, 1)


# Time: nothing runs for ever.


async def test_a_run_beyond_the_limit_is_given_up_and_interrupted() -> None:
    bench = Bench(num_workers=2, run_limit_seconds=1)
    late = bench.send(1)
    bench.clock.advance(600 * MS)
    other = bench.send(2)
    bench.clock.advance(399 * MS)
    assert not late.done()
    bench.clock.advance(MS)
    with pytest.raises(UnavailableError, match="did not answer within 1 s.*run_timeout_secs"):
        late.result()
    assert [each.executable.num_interrupts for each in bench.workers] == [1, 0]
    assert not other.done()
    bench.workers[1].finish()
    assert value_of(other) == 4
    # It ends at last, and what it gives is nobody's; the worker goes on.
    bench.finish()
    await settle()
    assert bench.statistics.num_pending == 0
    assert bench.statistics.failures[FailureReason.BACKEND] == 1
    again = bench.send(3)
    bench.clock.advance(999 * MS)
    bench.finish() if bench.is_busy else bench.workers[1].finish()
    assert value_of(again) == 6


async def test_what_was_given_up_is_not_run_one_by_one() -> None:
    bench = Bench(run_limit_seconds=1)
    bench.send(0)
    futures = [bench.send(value) for value in (1, POISON)]
    bench.finish()
    num_runs = len(bench.workers[0].executable.batches)
    bench.clock.advance(1000 * MS)
    bench.finish()
    assert len(bench.workers[0].executable.batches) == num_runs + 1
    for future in futures:
        with pytest.raises(UnavailableError, match="given up"):
            future.result()


# Forming batches.


async def test_requests_join_up_to_max_batch_size() -> None:
    bench = Bench()
    futures = [bench.send(value) for value in range(12)]
    assert bench.rows == [0]
    bench.finish()
    assert bench.rows == list(range(1, 9))
    bench.finish()
    assert bench.rows == [9, 10, 11]
    bench.finish()
    assert [value_of(future) for future in futures] == [2 * value for value in range(12)]
    assert bench.statistics.batches.keys() == {1, 8, 3}
    assert bench.statistics.num_executions == 3
    assert bench.statistics.num_inferences == 12


async def test_batch_sizes_of_requests_add_up() -> None:
    bench = Bench()
    bench.send(0)
    futures = [bench.send(value, rows=3) for value in (1, 2, 3)]
    bench.finish()
    assert bench.rows == [1, 1, 1, 2, 2, 2]
    bench.finish()
    assert futures[1].result().outputs["y"].shape == (3, 1)
    assert value_of(futures[1]) == 4


async def test_without_dynamic_batching_each_runs_alone() -> None:
    bench = Bench(is_dynamic=False)
    for value in range(3):
        bench.send(value)
    for value in range(3):
        assert bench.rows == [value]
        bench.finish()


async def test_delay_waits_for_a_full_batch() -> None:
    bench = Bench(max_queue_delay_us=1000)
    bench.send(1)
    bench.clock.advance(999_999)
    assert not bench.is_busy
    bench.clock.advance(1)
    assert bench.rows == [1]


async def test_delay_ends_when_the_batch_is_full() -> None:
    bench = Bench(max_queue_delay_us=1000)
    for value in range(8):
        bench.send(value)
    assert bench.rows == list(range(8))


async def test_nothing_waits_for_others_once_none_can_come() -> None:
    bench = Bench(max_queue_delay_us=3_600_000_000, preferred_batch_sizes=(4,), is_inline=True)
    waiting = [bench.send(value) for value in (1, 2)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    await asyncio.wait_for(bench.dispatcher.drain(), 60)
    assert [value_of(each) for each in waiting] == [2, 4]
    late = bench.send(3)  # a step of an ensemble that had begun before
    assert value_of(late) == 6


async def test_preferred_size_goes_at_once() -> None:
    bench = Bench(max_queue_delay_us=1000, preferred_batch_sizes=(2, 4))
    bench.send(1)
    assert not bench.is_busy
    bench.send(2)
    assert bench.rows == [1, 2]
    for value in range(3, 8):
        bench.send(value)
    bench.finish()
    assert bench.rows == [3, 4, 5, 6]


async def test_different_shapes_run_apart_and_in_order_of_their_heads() -> None:
    bench = Bench()
    bench.send(0)
    for value, length in ((1, 2), (2, 5), (3, 2), (4, 5)):
        bench.send(value, length=length)
    bench.finish()
    assert bench.rows == [1, 3]
    bench.finish()
    assert bench.rows == [2, 4]


async def test_ragged_rows_are_padded_and_cut() -> None:
    bench = Bench(ragged_inputs=frozenset({"x"}))
    bench.send(0)
    futures = [bench.send(value, length=length) for value, length in ((1, 2), (2, 5), (3, 1))]
    bench.finish()
    bench.finish()
    joined = bench.workers[0].executable.batches[-1]
    assert joined.shape == (3, 5)
    assert joined[0].tolist() == [1, 1, 0, 0, 0]
    assert [future.result().outputs["y"].tolist() for future in futures] == [[[2, 2]], [[4] * 5], [[6]]]


# Priorities, timeouts, order.


async def test_priority_one_goes_first() -> None:
    bench = Bench(is_dynamic=False, num_priority_levels=3, default_priority_level=2)
    bench.send(0)
    for value, priority in ((3, 3), (2, 0), (1, 1), (2.5, 9)):
        bench.send(value, priority=priority)
    order = []
    for _ in range(5):
        order.extend(bench.rows)
        bench.finish()
    assert order == [0, 1, 2, 2.5, 3]


async def test_timeout_rejects_without_a_free_worker() -> None:
    bench = Bench(default_queue_policy=QueuePolicy(default_timeout_us=1000))
    running = bench.send(1)
    late = bench.send(2)
    bench.clock.advance(1 * MS)
    with pytest.raises(UnavailableError, match=r"waited 1\.0 ms"):
        late.result()
    bench.finish()
    assert value_of(running) == 2
    assert bench.statistics.failures[FailureReason.REJECTED] == 1
    await settle()
    assert bench.statistics.num_pending == 0


async def test_delayed_requests_go_behind_those_in_time() -> None:
    policy = QueuePolicy(TimeoutAction.DELAY, default_timeout_us=1000)
    bench = Bench(is_dynamic=False, default_queue_policy=policy)
    bench.send(0)
    bench.send(1)
    bench.clock.advance(1 * MS)
    bench.send(2)
    bench.finish()
    assert bench.rows == [2]
    bench.finish()
    assert bench.rows == [1]


@pytest.mark.parametrize(("is_allowed", "is_rejected"), [(True, True), (False, False)])
async def test_requests_own_timeout_counts_only_where_allowed(is_allowed: bool, is_rejected: bool) -> None:
    bench = Bench(default_queue_policy=QueuePolicy(allow_timeout_override=is_allowed))
    bench.send(0)
    future = bench.send(1, timeout_us=500)
    bench.clock.advance(1 * MS)
    assert future.done() == is_rejected
    if is_rejected:
        future.exception()


async def test_a_longer_timeout_of_a_request_does_not_count() -> None:
    bench = Bench(default_queue_policy=QueuePolicy(default_timeout_us=500, allow_timeout_override=True))
    bench.send(0)
    future = bench.send(1, timeout_us=900)
    bench.clock.advance(500_000)
    assert isinstance(future.exception(), UnavailableError)


async def test_preserved_order_holds_a_faster_workers_answers() -> None:
    bench = Bench(num_workers=2, is_dynamic=False, preserve_ordering=True)
    first, second, third = (bench.send(value) for value in (1, 2, 3))
    bench.workers[1].finish()
    assert not second.done()
    bench.workers[1].finish()
    assert not third.done()
    bench.workers[0].finish()
    assert first.done()
    assert second.done()
    assert third.done()


async def test_a_slow_worker_is_left_alone_while_the_fast_one_keeps_up() -> None:
    bench = Bench(num_workers=2)
    bench.send(1)
    bench.send(2)
    bench.workers[0].finish(1 * MS)
    bench.workers[1].finish(50 * MS)
    bench.send(3)
    assert bench.workers[0].rows == [3]
    bench.send(4)
    assert bench.workers[1].current is None  # the fast one will have done it before the slow one could
    bench.workers[0].finish(1 * MS)
    assert bench.workers[0].rows == [4]


async def test_a_slow_worker_helps_with_a_long_queue() -> None:
    bench = Bench(num_workers=2, is_dynamic=False)
    bench.send(1)
    bench.send(2)
    bench.workers[0].finish(10 * MS)
    bench.workers[1].finish(30 * MS)
    for value in range(10):
        bench.send(value)
    assert bench.workers[1].current is not None


# Inline workers, ends.


async def test_an_inline_worker_answers_before_submit_returns() -> None:
    bench = Bench(is_inline=True)
    future = bench.send(5)
    assert value_of(future) == 10
    assert future.result().id == "5"
    assert future.result().version == 3
    assert bench.statistics.num_pending == 0


async def test_the_short_way_counts_as_the_long_way_does() -> None:
    short, long = Bench(is_inline=True), Bench(is_inline=True)
    long.dispatcher._direct = None
    for bench in (short, long):
        for rows in (1, 3, 3):
            bench.send(5, rows=rows).result()
        assert isinstance(bench.send(POISON).exception(), InvalidArgumentError)
        bench.statistics.last_inference_ms = 0
    assert short.statistics == long.statistics
    assert short.statistics.num_inferences == 7


async def test_an_inline_worker_empties_a_long_queue_without_recursion() -> None:
    bench = Bench(is_inline=True, is_dynamic=False, max_queue_delay_us=1000)
    bench.dispatcher._is_pumping = True  # requests pile up
    futures = [bench.send(value) for value in range(3000)]
    bench.dispatcher._is_pumping = False
    bench.dispatcher._pump()
    assert all(future.done() for future in futures)


async def test_what_finish_raises_is_the_answer() -> None:
    bench = Bench(is_inline=True)
    x = np.ones((1, 1), np.float32)

    def finish(response: InferenceResponse) -> InferenceResponse:
        raise InvalidArgumentError("no classes")

    future = bench.dispatcher.submit(Call(InferenceRequest("doubler", {"x": x}), {"x": x}, 1, Finisher(finish)))
    with pytest.raises(InvalidArgumentError, match="no classes"):
        future.result()
    assert bench.statistics.failures[FailureReason.OTHER] == 1


async def test_a_defect_in_finish_costs_nobody_else_the_answer() -> None:
    bench = Bench()
    bench.send(0)
    x = np.ones((1, 1), np.float32)

    def finish(response: InferenceResponse) -> InferenceResponse:
        raise ZeroDivisionError("a defect")

    spoilt = bench.dispatcher.submit(Call(InferenceRequest("doubler", {"x": x}), {"x": x}, 1, Finisher(finish)))
    other = bench.send(2)
    bench.finish()
    bench.finish()
    assert value_of(other) == 4
    with pytest.raises(InternalError, match="ZeroDivisionError: a defect"):
        spoilt.result()
    assert bench.statistics.num_pending == 0
    assert bench.statistics.failures[FailureReason.OTHER] == 1


async def test_everyone_who_drains_is_told() -> None:
    bench = Bench()
    bench.send(1)
    draining = [asyncio.ensure_future(bench.dispatcher.drain()) for _ in range(2)]
    await settle()
    bench.finish()
    bench.send(2)  # before those who drain are back: they go on waiting
    await settle()
    assert not any(each.done() for each in draining)
    bench.finish()
    await asyncio.wait_for(asyncio.gather(*draining), 60)


async def test_close_refuses_the_waiting_and_finishes_the_running() -> None:
    bench = Bench()
    running = bench.send(1)
    waiting = bench.send(2)
    closing = asyncio.ensure_future(bench.dispatcher.close())
    await settle()
    assert isinstance(waiting.exception(), UnavailableError)
    with pytest.raises(UnavailableError, match="being unloaded"):
        bench.send(3)
    assert not closing.done()
    bench.finish()
    await closing
    assert value_of(running) == 2
    assert bench.workers[0].executable.is_closed


async def test_drain_waits_for_all() -> None:
    bench = Bench()
    bench.send(1)
    bench.send(2)
    draining = asyncio.ensure_future(bench.dispatcher.drain())
    await settle()
    bench.finish()
    await settle()
    assert not draining.done()
    bench.finish()
    await asyncio.wait_for(draining, 60)


async def test_real_threads_answer_everyone_while_clients_come_and_go() -> None:
    bench = Bench()
    workers = [ThreadWorker(TensorRunner(Doubler()), "test") for _ in range(2)]
    from triune.core.clock import MonotonicClock

    policy = BatchingPolicy(max_batch_size=4, is_dynamic=True, max_queue_delay_us=200)
    bench.dispatcher = Dispatcher("doubler", 1, policy, ["y"], workers, bench.statistics, MonotonicClock())
    rng = np.random.default_rng(7)
    futures = []
    for value in range(500):
        futures.append(bench.send(value))
        if rng.random() < 0.3:
            futures[rng.integers(len(futures))].cancel()
        if rng.random() < 0.2:
            await asyncio.sleep(0)
    done = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 30)
    for value, answer in enumerate(done):
        if isinstance(answer, InferenceResponse):
            assert answer.outputs["y"][0, 0] == 2 * value
        else:
            assert isinstance(answer, asyncio.CancelledError)
    await asyncio.wait_for(bench.dispatcher.close(), 60)
    statistics = bench.statistics
    assert statistics.num_pending == 0
    assert statistics.success.count + statistics.failures[FailureReason.CANCELED] == 500


class SlowFinish:
    """A classification that takes until it is released."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.release = threading.Event()

    async def begun(self) -> None:
        async with asyncio.timeout(60):
            while not self.threads:
                await asyncio.sleep(0.001)

    def __call__(self, response: InferenceResponse) -> InferenceResponse:
        self.threads.append(threading.get_ident())
        assert self.release.wait(60)
        return InferenceResponse(response.model, response.version, {"y": response.outputs["y"] + 1}, response.id)

    def send(self, bench: Bench, value: float) -> asyncio.Future[InferenceResponse]:
        x = np.full((1, 2000), value, np.float32)
        finish = Finisher(self, frozenset(["y"]))
        return bench.dispatcher.submit(Call(InferenceRequest("doubler", {"x": x}), {"x": x}, 1, finish))


@pytest.mark.parametrize("is_inline", [False, True])
async def test_what_takes_long_to_finish_holds_neither_worker_nor_loop(is_inline: bool) -> None:
    bench, slow = Bench(is_inline=is_inline), SlowFinish()
    classified = slow.send(bench, 1)
    if not is_inline:
        bench.finish(5 * MS)
    other = bench.send(2)
    if not is_inline:
        bench.finish()
    assert value_of(other) == 4
    draining = asyncio.ensure_future(bench.dispatcher.drain())
    await slow.begun()
    assert not classified.done()
    assert not draining.done()
    bench.clock.advance(1000 * MS)
    slow.release.set()
    assert float((await asyncio.wait_for(classified, 60)).outputs["y"][0, 0]) == 3
    await asyncio.wait_for(draining, 60)
    assert threading.get_ident() not in slow.threads
    statistics = bench.statistics
    assert statistics.success.count == 2
    assert statistics.success.total_ns < 1000 * MS, "finishing counts nowhere"


async def test_a_batch_does_not_wait_for_what_one_of_it_finishes() -> None:
    bench, slow = Bench(), SlowFinish()
    bench.send(0, length=2000)
    classified, other = slow.send(bench, 1), bench.send(2, length=2000)
    bench.finish()
    assert bench.rows == [1, 2]
    bench.finish()
    assert value_of(other) == 4
    classified.cancel()
    next_ = slow.send(bench, 3)
    bench.finish()
    slow.release.set()
    assert float((await asyncio.wait_for(next_, 60)).outputs["y"][0, 0]) == 7
    await asyncio.wait_for(bench.dispatcher.drain(), 60)
    assert bench.statistics.failures[FailureReason.CANCELED] == 1


async def test_preserved_order_holds_for_what_takes_long_to_finish() -> None:
    bench, slow = Bench(preserve_ordering=True, is_dynamic=False), SlowFinish()
    order: list[float] = []
    answers = [slow.send(bench, 1), bench.send(2), slow.send(bench, 3), bench.send(4)]
    for value, each in enumerate(answers, 1):
        each.add_done_callback(lambda _, value=value: order.append(value))
        bench.finish()
    await slow.begun()
    assert order == []
    slow.release.set()
    await asyncio.wait_for(asyncio.gather(*answers), 60)
    assert order == [1, 2, 3, 4]


async def test_what_a_slow_finish_raises_is_the_answer() -> None:
    bench = Bench()

    def fail(_: InferenceResponse) -> InferenceResponse:
        raise InvalidArgumentError("no classes")

    x = np.ones((1, 2000), np.float32)
    call = Call(InferenceRequest("doubler", {"x": x}), {"x": x}, 1, Finisher(fail, frozenset(["y"])))
    bad = bench.dispatcher.submit(call)
    bench.finish()
    with pytest.raises(InvalidArgumentError, match="no classes"):
        await asyncio.wait_for(bad, 60)
    assert bench.statistics.failures[FailureReason.OTHER] == 1
    assert bench.statistics.num_pending == 0
