"""A model that computes in a thread of its own, beside one that asks from the event loop."""

import threading
from collections.abc import Callable

import pytest

from triune.arbiter.arbiter import Arbiter
from triune.arbiter.balance import Demand
from triune.arbiter.blocking import BlockingShare
from triune.arbiter.pool import PATIENCE_NS
from triune.core.clock import VirtualClock
from triune.core.units import Unit

MS = 1_000_000


class Pair:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.arbiter = Arbiter(self.clock)
        self.other = self.arbiter.join("other", [Unit.AMX], lambda: None)[Unit.AMX]
        self.steps = BlockingShare(self.arbiter, self.clock, "steps", Unit.CPU)

    def step(self, after_ns: int, *, has_more: bool) -> None:
        self.steps.begin()
        self.clock.advance(after_ns)
        self.steps.end(1, has_more=has_more)


def in_thread(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_steps_tell_their_demand() -> None:
    pair = Pair()
    pool = pair.arbiter.pools[Unit.CPU]
    pair.step(20 * MS, has_more=False)
    assert pool.num_wanting == 0
    pair.step(20 * MS, has_more=True)
    assert pool.num_wanting == 1
    pair.steps.withdraw()
    assert pool.num_wanting == 0
    pair.step(20 * MS, has_more=True)
    pair.steps.close()
    assert pool.num_wanting == 0


def test_a_model_leaves_the_unit_of_a_busy_language_model_to_it() -> None:
    pair = Pair()
    costs = {Unit.CPU: 10.0 * MS, Unit.GPU: 10.0 * MS}
    demand = Demand(lambda: costs)
    shares = pair.arbiter.join("flexible", [Unit.CPU, Unit.GPU], lambda: None, demand=demand)
    for _ in range(100):
        pair.step(20 * MS, has_more=True)
        demand.num_requests += 1
        pair.arbiter.balance.update(pair.clock.now_ns())
    assert shares[Unit.CPU].is_displaced()
    assert not shares[Unit.GPU].is_elsewhere
    pair.steps.withdraw()
    assert not shares[Unit.CPU].is_displaced(), "a pool waits for nobody who does not compute"
    pair.steps.close()
    pair.clock.advance(1000 * MS)
    pair.arbiter.balance.update(pair.clock.now_ns())


def test_a_step_waits_for_its_turn() -> None:
    pair = Pair()
    pair.step(20 * MS, has_more=False)
    turn = pair.other.start(Unit.AMX, 20 * MS)
    assert turn is not None
    thread = in_thread(pair.steps.begin)
    while not pair.arbiter.pools[Unit.CPU].waiting:
        thread.join(0.001)
    pair.clock.advance(20 * MS)
    pair.other.end(turn, 20 * MS)
    thread.join(60)
    assert not thread.is_alive()
    pair.steps.end(1, has_more=False)


@pytest.mark.parametrize("has_more", [True, False])
def test_a_loop_of_steps_takes_turns_with_others(has_more: bool) -> None:
    pair = Pair()
    pair.step(20 * MS, has_more=False)
    pair.steps.begin()
    assert pair.other.start(Unit.AMX, 20 * MS) is None
    pair.clock.advance(20 * MS)
    pair.steps.end(1, has_more=has_more)
    assert pair.other.has_turn, "its clock is behind"
    pair.steps.withdraw()
    turn = pair.other.start(Unit.AMX, 20 * MS)
    assert turn is not None
    pair.other.end(turn, 20 * MS)
    pair.steps.close()
    assert len(pair.arbiter.pools[Unit.CPU].shares) == 1


def test_a_loop_that_ends_gives_its_turn_back() -> None:
    pair = Pair()
    pair.step(20 * MS, has_more=True)
    assert pair.other.start(Unit.AMX, 20 * MS) is None, "it is the turn of the loop, which said that it goes on"
    pair.steps.withdraw()
    assert pair.other.has_turn


def test_a_step_does_not_wait_for_ever() -> None:
    pair = Pair()
    pair.step(20 * MS, has_more=False)
    assert pair.other.start(Unit.AMX, 20 * MS) is not None
    thread = in_thread(pair.steps.begin)
    while not pair.arbiter.pools[Unit.CPU].waiting:
        thread.join(0.001)
    pair.clock.advance(PATIENCE_NS)
    thread.join(60)
    assert not thread.is_alive()
