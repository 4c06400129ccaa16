"""One decision by itself: which requests start now, and on which worker."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.hand import Doubler, HandWorker
from triune.arbiter.arbiter import Arbiter
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.core.units import Unit
from triune.scheduling.batch import Batch
from triune.scheduling.batcher import Batcher, FormedBatch
from triune.scheduling.choice import Choice
from triune.scheduling.lane import EligibleLanes, Lane
from triune.scheduling.objective import Objective
from triune.scheduling.queue import Pending, RequestQueue
from triune.scheduling.turns import Turns

MS = 1_000_000
NUM_TRIALS = 3


class Table:
    """Lanes whose milliseconds of a row are known, a queue, and the decision for them."""

    def __init__(
        self,
        num_waiting: int,
        row_ms: dict[Unit, float],
        *,
        is_measured: bool = True,
        objective: Objective | None = None,
        share_of: Callable[[Unit], object] = lambda _: None,
        **policy: int,
    ) -> None:
        self.clock = VirtualClock()
        self.policy = BatchingPolicy(**{"max_batch_size": 16, "is_dynamic": True, **policy})
        self.lanes = {
            unit: Lane(HandWorker(Doubler(unit), self.clock), lambda _, __: None, None, share_of(unit))  # type: ignore[arg-type]
            for unit in row_ms
        }
        for unit, each_ms in row_ms.items():
            if is_measured:
                for _ in range(NUM_TRIALS):
                    for rows in (1, 2, 4, 8, 16):
                        self.lanes[unit].cost.record(rows, round(rows * each_ms * MS))
        lanes = list(self.lanes.values())
        batcher = Batcher(self.policy)
        self.choice = Choice(lanes, EligibleLanes(lanes, ()), batcher, objective)
        self.queue = RequestQueue(self.policy)
        for value in range(num_waiting):
            self.add(value)

    def add(self, value: int, num_rows: int = 1) -> None:
        x = np.full((num_rows, 1), value, np.float32)
        call = Call(InferenceRequest("m", {"x": x}), {"x": x}, num_rows)
        self.queue.push(Pending(call, asyncio.Future(), self.clock.now_ns()), lambda: 0.0)

    def next(self) -> tuple[Unit, list[float]] | None:
        """The unit and the requests of the batch that starts now; it starts, and never ends."""
        found = self.choice.next(self.queue, self.clock.now_ns())
        if found is None:
            return None
        lane, formed = found
        values = [float(each.call.inputs["x"][0, 0]) for each in formed.pendings]
        for each in formed.pendings:
            self.queue.begin(each)
        lane.start(Batch(formed, ["y"], self.policy), self.clock.now_ns(), self.queue.size)
        return lane.worker.runner.unit, values

    def end(self, unit: Unit, takes_ms: float) -> None:
        """The batch of a unit ends after `takes_ms`."""
        lane = self.lanes[unit]
        assert lane.running is not None
        assert isinstance(lane.worker, HandWorker)
        batch, lane.worker.current = lane.running, None
        self.clock.advance(round(takes_ms * MS))
        batch.started_ns, batch.ended_ns, batch.num_executions = lane.begun_ns, self.clock.now_ns(), 1
        lane.end(batch, list(self.lanes.values()))

    def start(self, unit: Unit, num_rows: int) -> None:
        """A batch that nobody chose runs on a unit from now on."""
        formed = FormedBatch.of([], num_rows)._replace(num_elements=num_rows)
        self.lanes[unit].start(Batch(formed, ["y"], self.policy), self.clock.now_ns(), 0)


async def test_nothing_starts_while_every_worker_is_busy() -> None:
    table = Table(3, {Unit.CPU: 1.0})
    table.start(Unit.CPU, 1)
    assert table.next() is None
    assert (table.choice.when_ns, table.queue.size) == (0, 3)


async def test_units_of_unknown_speed_are_measured_with_one_row_each() -> None:
    table = Table(40, {Unit.CPU: 4.0, Unit.GPU: 1.0}, is_measured=False)
    trials = []
    for _ in range(NUM_TRIALS):
        for _ in table.lanes:
            found = table.next()
            assert found is not None
            trials.append((found[0], len(found[1])))
        for unit, takes_ms in ((Unit.GPU, 1), (Unit.CPU, 3)):
            table.end(unit, takes_ms)
    assert Counter(trials) == {(Unit.CPU, 1): NUM_TRIALS, (Unit.GPU, 1): NUM_TRIALS}
    # The first batch that is no trial goes to the faster unit, in the order of arrival.
    assert table.next() == (Unit.GPU, [float(value) for value in range(6, 22)])


@pytest.mark.parametrize("has_single", [False, True])
async def test_a_slow_unit_is_measured_again_by_a_short_request_if_one_comes(*, has_single: bool) -> None:
    table = Table(0, {Unit.CPU: 40.0, Unit.GPU: 1.0})
    numbers = {Unit.CPU: list[int](), Unit.GPU: list[int]()}
    for number in range(200):
        table.add(number, 1 if has_single and number == 100 else 16)
        found = table.next()
        assert found is not None
        numbers[found[0]].append(number)
        table.end(found[0], 16.0)
    assert numbers[Unit.CPU] == [100 if has_single else 128]


@pytest.mark.parametrize(("num_waiting", "expected"), [(1, None), (2, None), (3, Unit.CPU), (12, Unit.CPU)])
async def test_a_slow_unit_computes_only_what_the_fast_one_would_end_later(
    num_waiting: int, expected: Unit | None
) -> None:
    # Batches of one row, since nothing is batched: 10 ms on the CPU, 3 ms on the GPU, which is busy for one more batch.
    table = Table(num_waiting, {Unit.CPU: 10.0, Unit.GPU: 3.0}, is_dynamic=0)
    table.start(Unit.GPU, 1)
    found = table.next()
    assert (None if found is None else found[0]) == expected
    assert table.queue.size == num_waiting - (found is not None)


async def test_of_free_units_the_faster_one_computes_and_the_slower_one_is_left() -> None:
    table = Table(2, {Unit.CPU: 10.0, Unit.GPU: 1.0})
    assert table.next() == (Unit.GPU, [0, 1])
    table.add(2)
    assert table.next() is None


async def test_a_batch_that_may_grow_says_when_to_ask_again() -> None:
    table = Table(1, {Unit.CPU: 1.0}, max_queue_delay_us=500)
    assert table.next() is None
    assert table.choice.when_ns == table.clock.now_ns() + 500_000
    table.clock.advance(500_000)
    assert table.next() == (Unit.CPU, [0])
    assert table.choice.when_ns == 0


async def test_an_objective_cuts_the_batch_and_takes_the_cheapest_unit_in_time() -> None:
    joules = {Unit.CPU: 1.0, Unit.GPU: 5.0}
    units = {Unit.CPU: 10.0, Unit.GPU: 1.0}
    generous = Table(4, units, objective=Objective(200 * MS, joules.__getitem__))
    assert generous.next() == (Unit.CPU, [0, 1, 2, 3])
    # While there is time, the next requests wait for the cheap unit, though the other is free.
    generous.add(4)
    assert generous.next() is None
    strict = Table(4, units, objective=Objective(5 * MS, joules.__getitem__))
    assert strict.next() == (Unit.GPU, [0, 1])


async def test_hardware_that_another_model_has_is_not_free_and_the_other_unit_computes() -> None:
    clock = VirtualClock()
    arbiter = Arbiter(clock)
    asked: list[str] = []
    other = Turns("other", [Unit.GPU], arbiter, 1.0, lambda: asked.append("other"), dict)
    own = Turns("own", [Unit.GPU, Unit.ANE], arbiter, 1.0, lambda: asked.append("own"), dict)
    share = other.share_of(Unit.GPU)
    assert share is not None
    other.arrived(0)
    turn = share.start(Unit.GPU, 3 * MS, 3 * MS)
    assert turn is not None
    table = Table(1, {Unit.GPU: 1.0, Unit.ANE: 2.0}, share_of=own.share_of)
    own.arrived(0)
    assert table.next() == (Unit.ANE, [0])
    table.add(1)
    assert table.next() is None
    share.end(turn, 3 * MS, None)
    await asyncio.sleep(0)
    assert asked[-1:] == ["own"]
    assert table.next() == (Unit.GPU, [1])


async def test_units_of_the_same_hardware_are_compared_by_their_times_alone() -> None:
    """`amx` was measured last while others computed, and `cpu` when nothing did."""
    arbiter = Arbiter(VirtualClock())
    turns = Turns("own", [Unit.CPU, Unit.AMX], arbiter, 1.0, lambda: None, dict)
    table = Table(1, {Unit.CPU: 2.0, Unit.AMX: 5.0}, share_of=turns.share_of)
    for unit, alone_ms in ((Unit.CPU, 2), (Unit.AMX, 1)):
        for _ in range(NUM_TRIALS):
            table.lanes[unit].alone.record(1, alone_ms * MS)
    assert table.next() == (Unit.AMX, [0])


@example(rows_ms=[10, 3], busy=[False, True, False, False], num_waiting=3, most=1)
@given(
    rows_ms=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    busy=st.lists(st.booleans(), min_size=4, max_size=4),
    num_waiting=st.integers(1, 40),
    most=st.sampled_from([1, 4, 16]),
)
async def test_no_other_worker_would_end_the_batch_sooner(
    rows_ms: Sequence[int], busy: Sequence[bool], num_waiting: int, most: int
) -> None:
    units = dict(zip(Unit, [float(each) for each in rows_ms], strict=False))
    table = Table(num_waiting, units, max_batch_size=most)
    is_busy = dict(zip(units, busy, strict=False))
    for unit in units:
        if is_busy[unit]:
            table.start(unit, most)
    found = table.next()
    num_rows = min(num_waiting, most)
    free_ms = {unit: num_rows * each for unit, each in units.items() if not is_busy[unit]}
    # A busy unit ends its batch of `most` rows first, and then computes all that waits.
    num_batches = -(-num_waiting // num_rows)
    busy_ms = [(most + num_batches * num_rows) * each for unit, each in units.items() if is_busy[unit]]
    soonest_ms = min(free_ms.values(), default=0.0)
    if not free_ms or any(each < soonest_ms for each in busy_ms):
        assert found is None
        assert table.queue.size == num_waiting
        return
    assert found is not None
    unit, values = found
    assert free_ms[unit] == soonest_ms
    # The requests that came first. A worker may run fewer than all, to measure which number is the fastest.
    assert 1 <= len(values) <= num_rows
    assert values == [float(value) for value in range(len(values))]
