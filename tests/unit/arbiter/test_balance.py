"""Models that fill the hardware compute where they are relatively best."""

from collections.abc import Mapping

import pytest

from triune.arbiter.arbiter import Arbiter
from triune.arbiter.balance import Demand
from triune.arbiter.pool import DISPLACED_NS
from triune.arbiter.share import Share
from triune.core.clock import VirtualClock
from triune.core.units import Unit

MS = 1_000_000


class Model:
    def __init__(self, arbiter: Arbiter, name: str, costs_ms: Mapping[Unit, float]) -> None:
        self.costs = {unit: ms * MS for unit, ms in costs_ms.items()}
        self.woken = 0
        self.demand = Demand(lambda: self.costs)
        self.shares: Mapping[Unit, Share] = arbiter.join(name, [Unit.GPU, Unit.ANE], self.wake, demand=self.demand)

    def wake(self) -> None:
        self.woken += 1

    @property
    def elsewhere(self) -> list[Unit]:
        return [unit for unit, share in self.shares.items() if share.is_elsewhere]


class Machine:
    def __init__(self, **costs_ms: Mapping[Unit, float]) -> None:
        self.clock = VirtualClock()
        self.arbiter = Arbiter(self.clock)
        self.models = {name: Model(self.arbiter, name, each) for name, each in costs_ms.items()}

    def run(self, seconds: float, **per_second: float) -> None:
        for _ in range(int(seconds * 20)):
            self.clock.advance(50 * MS)
            for name, rate in per_second.items():
                self.models[name].demand.num_requests += round(rate / 20)
            self.arbiter.balance.update(self.clock.now_ns())


def pair() -> Machine:
    """One is twice as fast on the GPU, the other as fast on both: the Neural Engine belongs to the second."""
    return Machine(first={Unit.GPU: 1, Unit.ANE: 2}, second={Unit.GPU: 1, Unit.ANE: 1})


def test_each_leaves_the_pool_where_the_other_is_relatively_better() -> None:
    machine = pair()
    machine.run(2, first=1000, second=1000)
    assert machine.models["first"].elsewhere == [Unit.ANE]
    assert machine.models["second"].elsewhere == [Unit.GPU]


def test_a_model_that_fills_both_leaves_none() -> None:
    machine = pair()
    machine.run(2, first=200, second=1600)
    assert machine.models["first"].elsewhere == [Unit.ANE]
    assert machine.models["second"].elsewhere == []


def test_below_the_limit_nothing_is_divided() -> None:
    machine = pair()
    machine.run(2, first=400, second=400)
    assert [each.elsewhere for each in machine.models.values()] == [[], []]
    machine.run(2, first=1000, second=1000)
    machine.run(8, first=100, second=100)
    assert [each.elsewhere for each in machine.models.values()] == [[], []], "the load has gone"


def test_a_pool_whose_time_is_not_known_is_left_alone() -> None:
    machine = Machine(first={Unit.GPU: 1}, second={Unit.GPU: 1, Unit.ANE: 1}, third={})
    machine.run(2, first=1000, second=1000, third=1000)
    assert machine.models["first"].elsewhere == []
    assert machine.models["second"].elsewhere == [Unit.GPU]
    assert machine.models["third"].elsewhere == []


def test_a_model_that_left_counts_no_more() -> None:
    machine = pair()
    machine.run(2, first=1000, second=1000)
    machine.arbiter.balance.leave(machine.models["first"].demand)
    for share in machine.models["first"].shares.values():
        share.close()
    machine.run(3, second=1000)
    turn = machine.models["second"].shares[Unit.GPU].start(Unit.GPU, MS)
    assert turn is not None, "nobody else needs the pool"


@pytest.mark.parametrize("ends", ["work", "patience"])
def test_who_leaves_a_pool_computes_there_when_nobody_needs_it(ends: str) -> None:
    machine = pair()
    machine.run(2, first=1000, second=1000)
    first, second = (machine.models[name].shares[Unit.ANE] for name in ("first", "second"))
    turn = second.start(Unit.ANE, MS)
    assert turn is not None
    machine.models["second"].demand.tell(has_waiting=True)
    assert first.start(Unit.ANE, MS) is None
    assert machine.models["first"].shares[Unit.GPU].start(Unit.GPU, MS), "its own pool is free"
    machine.clock.advance(DISPLACED_NS - 1)
    assert first.start(Unit.ANE, MS) is None, "this is no short wait for a turn"
    if ends == "work":
        second.end(turn, MS)
        assert machine.models["first"].woken == 1
    else:
        machine.clock.advance(1)
    assert first.start(Unit.ANE, MS)


def test_requests_that_can_compute_nowhere_else_do_not_leave_a_pool() -> None:
    machine = pair()
    machine.run(2, first=1000, second=1000)
    first, second = (machine.models[name].shares[Unit.ANE] for name in ("first", "second"))
    turn = second.start(Unit.ANE, MS)
    assert turn is not None
    machine.models["second"].demand.tell(has_waiting=True)
    assert first.start(Unit.ANE, MS) is None
    assert first.is_displaced()
    first.bind(1)
    assert not first.is_displaced()
    machine.clock.advance(MS)
    second.end(turn, MS, MS)
    assert machine.models["first"].woken == 1
    assert first.start(Unit.ANE, MS)
    assert second.start(Unit.ANE, MS) is None, "they take turns"
    first.bind(0)
    assert first.is_displaced()


def test_who_only_has_requests_for_another_pool_wants_none_of_this_one() -> None:
    machine = pair()
    machine.run(2, first=1000, second=1000)
    machine.models["second"].shares[Unit.GPU].bind(5)
    turn = machine.models["first"].shares[Unit.ANE].start(Unit.ANE, MS)
    assert turn is not None, "nobody has requests that could compute here"


def test_each_gets_the_part_of_a_pool_that_its_requests_there_need() -> None:
    """Turns of equal times would give the second half of the GPU, and leave its requests waiting for the ANE."""
    machine = pair()
    machine.run(4, first=600, second=1300)
    portions = {name: each.shares[Unit.GPU].portion for name, each in machine.models.items()}
    # Of 1,900 ms a second, each pool computes half: 600 and 350 on the GPU, 950 on the Neural Engine.
    assert portions["first"] == pytest.approx(600 / 950, abs=0.08)
    assert portions["second"] == pytest.approx(350 / 950, abs=0.08)
    machine.run(8, first=60, second=130)
    assert {each.shares[Unit.GPU].portion for each in machine.models.values()} == {1.0}, "the pools are not full"


def test_turns_follow_the_portions() -> None:
    machine = pair()
    shares = {name: each.shares[Unit.GPU] for name, each in machine.models.items()}
    shares["first"].portion, shares["second"].portion = 0.25, 0.75
    turns = {"first": shares["first"].start(Unit.GPU, MS)}
    assert shares["second"].start(Unit.GPU, MS) is None
    ran: list[str] = []
    for _ in range(400):
        ((name, turn),) = turns.items()
        ran.append(name)
        machine.clock.advance(MS)
        shares[name].end(turn, MS, MS)
        turns = {each: turn for each, share in shares.items() if share.has_turn and (turn := share.start(Unit.GPU, MS))}
    assert ran.count("second") == pytest.approx(300, abs=4)
