import asyncio
import math
from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest

from support.hand import Bench, value_of
from triune.config.policy import BatchingPolicy, QueueLimits, QueuePolicy
from triune.core.errors import UnavailableError
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.core.statistics import FailureReason
from triune.core.units import Unit
from triune.scheduling.queue import Pending, RequestQueue, _Level

MS = 1_000_000


class Walked(deque[Pending]):
    """Counts how often it is walked."""

    num_walks = 0

    def __iter__(self) -> Iterator[Pending]:
        self.num_walks += 1
        return super().__iter__()


async def test_a_long_queue_is_not_walked_at_each_arrival() -> None:
    bench = Bench(is_dynamic=False, default_queue_policy=QueuePolicy(default_timeout_us=3_600_000_000))
    bench.send(0)
    waiting = Walked()
    bench.dispatcher._queue._levels[0] = _Level(waiting, deque(), deque())
    for value in range(200):
        bench.send(value)
    assert len(waiting) == 200
    assert waiting.num_walks == 0
    assert bench.statistics.num_pending == 201


class Unprintable(bytes):
    def __repr__(self) -> str:
        raise AssertionError("a request's tensors were made a text")


async def test_a_running_request_that_is_cancelled_is_not_made_a_text() -> None:
    queue = RequestQueue(BatchingPolicy())
    inputs = {"x": np.array([Unprintable(b"large")], np.object_)}
    call = Call(InferenceRequest("m", inputs), inputs, 1)
    running, waiting = (Pending(call, asyncio.Future(), 0) for _ in range(2))
    for each in (running, waiting):
        queue.push(each, lambda: 0.0)
    queue.begin(running)
    assert queue.remove(running) is False
    assert queue.remove(waiting) is True
    assert not queue.size
    assert "Unprintable" not in f"{running!r} {call!r}"


async def test_deadlines_are_kept_whoever_leaves_first() -> None:
    policy = QueuePolicy(allow_timeout_override=True)
    bench = Bench(is_dynamic=False, default_queue_policy=policy)
    bench.send(0)
    soonest = bench.send(1, timeout_us=1000)
    patient = bench.send(2)
    later = bench.send(3, timeout_us=5000)
    latest = bench.send(4, timeout_us=9000)
    soonest.cancel()
    await asyncio.sleep(0)
    bench.clock.advance(4 * MS)
    assert not later.done()
    bench.clock.advance(1 * MS)
    assert isinstance(later.exception(), UnavailableError)
    assert not latest.done()
    bench.clock.advance(4 * MS)
    assert isinstance(latest.exception(), UnavailableError)
    bench.finish()
    bench.finish()
    assert value_of(patient) == 4
    await asyncio.sleep(0)
    assert bench.statistics.num_pending == 0


@pytest.mark.parametrize("seed", range(5))
async def test_no_deadline_is_missed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bench = Bench(is_dynamic=False, default_queue_policy=QueuePolicy(allow_timeout_override=True))
    bench.send(0)
    waiting: list[tuple[int, asyncio.Future[object]]] = []
    for _ in range(200):
        timeout_ms = int(rng.integers(1, 30))
        future = bench.send(1, timeout_us=timeout_ms * 1000)
        waiting.append((bench.clock.now_ns() + timeout_ms * MS, future))  # type: ignore[arg-type]
        if rng.random() < 0.3:
            waiting.pop(int(rng.integers(len(waiting))))[1].cancel()
            await asyncio.sleep(0)
        bench.clock.advance(int(rng.integers(0, 3)) * MS)
        assert all(future.done() == (deadline_ns <= bench.clock.now_ns()) for deadline_ns, future in waiting)


async def test_levels_that_nobody_waits_in_are_forgotten() -> None:
    bench = Bench(is_dynamic=False, num_priority_levels=2**64 - 1, default_priority_level=7)
    bench.send(0)
    for level in range(1, 100):
        bench.send(level, priority=level * 2**40)
    queue = bench.dispatcher._queue
    assert (len(queue), len(queue._levels)) == (99, 100), "the default level, which the first was in, and 99 others"
    for _ in range(100):
        bench.finish()
    assert bench.statistics.num_pending == 0
    assert list(queue._levels) == [7]


async def test_more_wait_than_the_server_allows() -> None:
    bench = Bench(is_dynamic=False, queue_limits=QueueLimits(3, math.inf), num_priority_levels=9)
    bench.send(0)
    waiting = [bench.send(value, priority=value) for value in (1, 2, 3)]
    with pytest.raises(UnavailableError, match="^Exceeds maximum queue size of model 'doubler', 3: .*--max-queue-size"):
        bench.send(4, priority=4)
    waiting[1].cancel()
    await asyncio.sleep(0)
    bench.send(5)
    assert bench.statistics.failures[FailureReason.REJECTED] == 1


async def test_a_config_that_says_how_many_may_wait_is_obeyed() -> None:
    policy = QueuePolicy(max_queue_size=200)
    bench = Bench(is_dynamic=False, queue_limits=QueueLimits(3, 0.001), default_queue_policy=policy)
    fill(bench, 200)
    with pytest.raises(UnavailableError, match="^Exceeds maximum queue size of model 'doubler', 200: "):
        bench.send(4)


async def test_the_last_would_wait_too_long() -> None:
    bench = Bench(is_dynamic=False, queue_limits=QueueLimits(0, 10.0))
    fill(bench, 300)
    bench.clock.advance(9_000 * MS)
    bench.send(300)
    # A burst that the model will need a minute for: all are taken.
    for _ in range(20):
        bench.finish(after_ns=200 * MS)
    # 281 wait, the first for 13 s, the last will for 56 s.
    with pytest.raises(
        UnavailableError, match="281 requests wait, the first .* 13.0 s, and would .* 56.2 s, more than 10"
    ):
        bench.send(2)
    assert bench.statistics.failures[FailureReason.REJECTED] == 1
    # Soon they are few enough, though the first has waited for long.
    for _ in range(231):
        bench.finish(after_ns=200 * MS)
    bench.send(2)
    bench.send(3)


async def test_a_model_that_answers_nobody() -> None:
    bench = Bench(is_dynamic=False, queue_limits=QueueLimits(0, 10.0))
    fill(bench, 64)
    bench.clock.advance(10_000 * MS)
    bench.send(1)
    bench.clock.advance(1 * MS)
    with pytest.raises(UnavailableError, match="the first of them for 10.0 s"):
        bench.send(2)


async def test_a_few_may_wait_for_as_long_as_it_takes() -> None:
    bench = Bench(is_dynamic=False, queue_limits=QueueLimits(0, 10.0))
    fill(bench, 70)
    for _ in range(7):
        bench.finish(after_ns=60_000 * MS)
    bench.send(1)
    with pytest.raises(UnavailableError):
        bench.send(2)


async def test_who_goes_first_waits_for_nobody() -> None:
    bench = Bench(is_dynamic=False, queue_limits=QueueLimits(0, 10.0), num_priority_levels=2, default_priority_level=2)
    fill(bench, 70)
    for _ in range(2):
        bench.finish(after_ns=60_000 * MS)
    with pytest.raises(UnavailableError):
        bench.send(1)
    bench.send(2, priority=1)
    bench.finish()
    assert bench.rows == [2]


async def test_small_batches_of_quiet_times_are_no_measure() -> None:
    bench = Bench(queue_limits=QueueLimits(0, 10.0))
    for _ in range(20):
        bench.send(0)
        bench.finish(after_ns=500 * MS)
    fill(bench, 160)
    bench.finish(after_ns=11_000 * MS)
    bench.finish(after_ns=400 * MS)
    # 50 ms a request: the 152 that wait take 8 s.
    bench.send(1)


async def test_a_batch_goes_though_others_wait_for_theirs() -> None:
    bench = Bench(preferred_batch_sizes=(2, 6), max_queue_delay_us=1000)
    bench.send(1, length=4)
    bench.send(2, rows=1, length=8)
    assert not bench.is_busy
    bench.send(3, rows=5, length=8)
    assert bench.rows == [2, 3, 3, 3, 3, 3]
    bench.finish()
    assert not bench.is_busy
    bench.clock.advance(1 * MS)
    assert bench.rows == [1]


async def test_what_would_outgrow_every_preferred_size_is_left_for_the_next_batch() -> None:
    bench = Bench(preferred_batch_sizes=(2, 6), max_queue_delay_us=1000)
    bench.send(1, rows=3)
    bench.send(2, rows=4)
    assert bench.rows == [1, 1, 1]
    bench.finish()
    assert not bench.is_busy
    bench.clock.advance(1 * MS)
    assert bench.rows == [2, 2, 2, 2]


def fill(bench: Bench, num_waiting: int) -> None:
    """One request runs, and so many wait."""
    for value in range(num_waiting + 1):
        bench.send(value)
    assert bench.statistics.num_waiting == num_waiting


async def test_small_requests_pass_larger_ones_in_a_fair_queue_until_their_turn_has_come() -> None:
    bench = Bench(is_fair=True, is_dynamic=False)
    bench.send(0, length=100)
    large, small = [bench.send(value, length=100) for value in (1, 2)], [bench.send(3, length=4)]
    order: list[float] = []
    while bench.is_busy:
        order += bench.rows
        if len(order) < 40:
            small.append(bench.send(3 + len(order), length=4))
        bench.finish()
    assert order[:2] == [0, 3], "a small request goes before the large ones that wait"
    assert order.index(1) == 26, "25 small requests are as much as a large one: then it is its turn"
    assert order.index(2) > order.index(1)
    assert all(each.done() for each in (*large, *small))


async def test_a_batch_has_no_more_elements_than_it_may() -> None:
    bench = Bench(is_fair=True, max_elements=10, ragged_inputs=frozenset({"x"}))
    bench.send(0)
    for value, length in ((1, 30), (2, 8), (3, 4), (4, 4), (5, 3), (6, 1)):
        bench.send(value, length=length)
    batches: list[list[float]] = []
    while bench.is_busy:
        batches.append(bench.rows)
        bench.finish()
    assert batches == [[0], [6, 5, 3], [4], [2], [1]], "what is more than half of a batch is not added to others"


async def test_requests_that_name_a_unit_are_counted_until_they_leave() -> None:
    queue = RequestQueue(BatchingPolicy(default_queue_policy=QueuePolicy(allow_timeout_override=True)))

    def push(unit: Unit | None, timeout_us: int = 0) -> Pending:
        call = Call(InferenceRequest("m", {}, timeout_us=timeout_us), {}, 1)
        pending = Pending(call, asyncio.Future(), 0, unit=unit)
        queue.push(pending, lambda: 0.0)
        return pending

    first, cancelled, late, _ = push(Unit.CPU), push(Unit.GPU), push(Unit.GPU, 1000), push(Unit.CPU)
    assert queue.named == {Unit.GPU: 2, Unit.CPU: 2}
    assert queue.has_for(Unit.GPU)
    assert not queue.has_free
    queue.begin(first)
    queue.remove(cancelled)
    assert queue.expire(MS) == [late]
    assert queue.named == {Unit.CPU: 1}
    assert not queue.has_for(Unit.GPU)
    push(None)
    assert queue.has_free
    assert queue.has_for(Unit.GPU)
