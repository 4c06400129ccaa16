"""Models that compete for hardware, on simulated hardware and a virtual clock."""

import numpy as np
import pytest

from support.machine_room import Load, Room
from triune.arbiter.arbiter import Arbiter
from triune.arbiter.concurrency import ALL_MODELS, ALL_UNITS
from triune.arbiter.pool import PATIENCE_NS
from triune.core.clock import VirtualClock
from triune.core.units import Unit

MS = 1_000_000
EVICTING = {1: 1.0, 2: 0.4, 3: 0.25, 4: 0.18}
"""Two models together get 0.8 of the work done that one gets done alone."""
FILLING = {1: 1.0, 2: 0.8, 3: 0.6, 4: 0.45}
"""Two models together get 1.6 times as much done as one alone."""


def done(*loads: Load) -> float:
    return sum(each.done_ns for each in loads)


def test_models_that_hinder_each_other_take_turns() -> None:
    first, second = Load("a", 8 * MS), Load("b", 20 * MS)
    room = Room(first, second, shared=EVICTING)
    room.run(10)
    assert room.arbiter.pools[Unit.CPU].concurrency.level == 1
    room.run(10)
    assert done(first, second) > 0.95 * 20e9
    assert first.done_ns == pytest.approx(second.done_ns, rel=0.1), "both have the same time"


def test_models_that_fill_each_others_gaps_compute_together() -> None:
    first, second = Load("a", 8 * MS), Load("b", 20 * MS)
    room = Room(first, second, shared=FILLING)
    room.run(15)
    assert room.arbiter.pools[Unit.CPU].concurrency.level == 0
    assert done(first, second) > 1.4 * 15e9


def test_a_second_unit_that_slows_the_first_is_left_out() -> None:
    load = Load("a", 8 * MS, units={Unit.CPU: 0.3, Unit.AMX: 1.0})
    room = Room(load, shared=EVICTING)
    room.run(20)
    assert room.arbiter.pools[Unit.CPU].concurrency.level == 1
    assert load.done_ns > 0.95 * 20e9, "not below what the fastest unit does alone"


def test_a_second_unit_that_adds_something_is_used() -> None:
    load = Load("a", 8 * MS, units={Unit.CPU: 0.6, Unit.AMX: 1.0})
    room = Room(load, shared=FILLING)
    room.run(20)
    assert load.done_ns > 1.15 * 20e9


def test_the_speedup_is_what_the_hardware_gives() -> None:
    """Nothing is gained or lost by computing at once, but a batch takes twice as long on the second unit."""
    short, long = Load("short", 4 * MS), Load("long", 66 * MS, units={Unit.CPU: 0.5, Unit.AMX: 1.0})
    room = Room(short, long, shared={each: 1 / each for each in range(1, 5)})
    room.run(10)
    concurrency = room.arbiter.pools[Unit.CPU].concurrency
    assert concurrency.speedups[1] == pytest.approx(1.0, abs=0.03)
    assert concurrency.speedups[ALL_MODELS] == pytest.approx(1.0, abs=0.03)
    assert concurrency.speedups[ALL_UNITS] < 0.9
    assert concurrency.level == ALL_MODELS


def test_the_part_of_a_batch_is_its_time_without_what_others_had() -> None:
    arbiter = Arbiter(clock := VirtualClock())
    (first,) = arbiter.join("a", [Unit.CPU], lambda: None).values()
    (second,) = arbiter.join("b", [Unit.CPU], lambda: None).values()
    arbiter.pools[Unit.CPU].limit = 2
    turn = first.start(Unit.CPU, 30 * MS)
    clock.advance(10 * MS)
    other = second.start(Unit.CPU, 10 * MS)
    assert turn is not None
    assert other is not None
    clock.advance(20 * MS)
    assert second.end(other, 10 * MS) == 10 * MS
    assert first.end(turn, 20 * MS) == 20 * MS


def test_weights_divide_the_time_and_nobody_starves() -> None:
    loads = [Load("a", 5 * MS, weight=1.0), Load("b", 30 * MS, weight=1 / 2), Load("c", 10 * MS, weight=1 / 4)]
    room = Room(*loads, shared=EVICTING)
    room.run(40)
    a, b, c = (each.done_ns for each in loads)
    assert a / b == pytest.approx(2, rel=0.1)
    assert a / c == pytest.approx(4, rel=0.1)


def test_short_requests_are_not_stuck_behind_long_ones() -> None:
    short = Load("short", 4 * MS, period_ns=50 * MS, wanted_ns=None)
    long = [Load("long", 150 * MS), Load("longer", 180 * MS)]
    room = Room(short, *long, shared=EVICTING)
    room.run(30)
    before = done(*long)
    room.run(30)
    # In turn with the long ones a short request would wait for 75 ms and more.
    assert np.percentile(short.waits_ns, 99) < 40 * MS
    # All three at once get 0.75 of it done, the short ones included.
    assert done(*long) - before > 0.65 * 30e9


@pytest.mark.parametrize(("request_ms", "goes_beside"), [(20, False), (160, False), (300, True)])
def test_what_is_left_of_a_batch_of_equal_requests_waits_for_it(request_ms: int, goes_beside: bool) -> None:
    arbiter = Arbiter(VirtualClock())
    shares = arbiter.join("a", [Unit.CPU, Unit.AMX], lambda: None)
    assert shares[Unit.AMX].start(Unit.AMX, 300 * MS, request_ms * MS)
    turn = shares[Unit.CPU].start(Unit.CPU, 20 * MS)
    assert (turn is not None) is goes_beside


def test_what_is_left_does_not_go_beside_its_batch_when_another_ends() -> None:
    arbiter = Arbiter(clock := VirtualClock())
    shares = arbiter.join("a", [Unit.CPU, Unit.AMX], lambda: None)
    (other,) = arbiter.join("b", [Unit.CPU], lambda: None).values()
    short = other.start(Unit.CPU, 1 * MS)
    assert short is not None
    assert shares[Unit.AMX].start(Unit.AMX, 300 * MS, 20 * MS) is None
    other.end(short, 1 * MS)
    assert shares[Unit.AMX].start(Unit.AMX, 300 * MS, 20 * MS)
    assert shares[Unit.CPU].start(Unit.CPU, 20 * MS) is None
    beside = other.start(Unit.CPU, 1 * MS)
    assert beside is None or beside.running.is_beside
    if beside is not None:
        other.end(beside, 1 * MS)
    assert shares[Unit.CPU].is_blocked(clock.now_ns())


def test_a_short_batch_waits_while_it_is_measured_how_long_the_running_one_takes_alone() -> None:
    arbiter = Arbiter(VirtualClock())
    (long,) = arbiter.join("long", [Unit.CPU], lambda: None).values()
    (short,) = arbiter.join("short", [Unit.CPU], lambda: None).values()
    turn = long.start(Unit.CPU, 100 * MS, alone_ns=0)
    assert turn is not None
    assert short.start(Unit.CPU, 5 * MS) is None
    short.withdraw()
    long.end(turn, 100 * MS, is_known=False)
    assert long.start(Unit.CPU, 100 * MS)
    assert short.start(Unit.CPU, 5 * MS)


def test_what_is_short_is_told_by_the_time_alone_not_by_that_beside_others() -> None:
    arbiter = Arbiter(VirtualClock())
    (long,) = arbiter.join("long", [Unit.CPU], lambda: None).values()
    (short,) = arbiter.join("short", [Unit.CPU], lambda: None).values()
    assert long.start(Unit.CPU, 60 * MS)
    assert short.start(Unit.CPU, 20 * MS, alone_ns=10 * MS)


def test_a_model_that_had_more_than_its_share_does_not_go_beside_others() -> None:
    arbiter = Arbiter(clock := VirtualClock())
    (long,) = arbiter.join("long", [Unit.CPU], lambda: None).values()
    (short,) = arbiter.join("short", [Unit.CPU], lambda: None, weight=1 / 100).values()
    assert long.start(Unit.CPU, 100 * MS)
    beside = short.start(Unit.CPU, 5 * MS)
    assert beside is not None
    clock.advance(10 * MS)
    # Its part is half of 10 ms, with its weight 500 ms: the long one's next batches come first.
    short.end(beside, 5 * MS)
    assert short.start(Unit.CPU, 5 * MS) is None


def test_a_turn_beside_others_for_a_short_batch_is_not_for_a_longer_one() -> None:
    """A single request ends, and the model's next batch is expected to be as short: what waits is a long one."""
    arbiter = Arbiter(clock := VirtualClock())
    shares = arbiter.join("a", [Unit.CPU, Unit.AMX], lambda: None)
    (other,) = arbiter.join("b", [Unit.CPU], lambda: None).values()
    single = shares[Unit.CPU].start(Unit.CPU, 5 * MS)
    assert single is not None
    assert other.start(Unit.CPU, 400 * MS) is None
    shares[Unit.CPU].end(single, 5 * MS, next_ns=5 * MS)
    assert other.start(Unit.CPU, 400 * MS)
    clock.advance(1 * MS)
    # Another short batch comes and goes beside the long one, so that turns are given anew.
    short = arbiter.join("c", [Unit.CPU], lambda: None)[Unit.CPU]
    passing = short.start(Unit.CPU, 1 * MS)
    if passing is not None:
        short.end(passing, 1 * MS)
    assert shares[Unit.CPU].has_turn, "as far as known it is short"
    assert shares[Unit.CPU].start(Unit.CPU, 290 * MS) is None
    assert shares[Unit.CPU].is_blocked(clock.now_ns())
    assert short.start(Unit.CPU, 1 * MS), "the place beside the long batch is free again"


def test_what_was_clearly_slower_is_seldom_measured_again() -> None:
    load = Load("a", 8 * MS, units={Unit.CPU: 0.2, Unit.AMX: 1.0})
    room = Room(load, shared=EVICTING)
    room.run(2)
    assert room.arbiter.pools[Unit.CPU].concurrency.speedups[ALL_UNITS] < 0.5
    before = load.done_ns
    room.run(60)
    assert load.done_ns - before > 0.999 * 60e9


def test_who_waits_for_its_own_other_unit_keeps_nobody_waiting() -> None:
    arbiter = Arbiter(VirtualClock())
    own = arbiter.join("a", [Unit.CPU, Unit.AMX], lambda: None)
    (other,) = arbiter.join("b", [Unit.CPU], lambda: None).values()
    pool = arbiter.pools[Unit.CPU]
    pool.limit = 3
    assert own[Unit.AMX].start(Unit.AMX, 20 * MS)
    assert own[Unit.CPU].start(Unit.CPU, 40 * MS) is None, "no measurement says that two of its units get more done"
    assert other.start(Unit.CPU, 20 * MS)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_speedup_that_was_not_measured_is_not_assumed(is_known: bool) -> None:
    """Two models that get as much done together as in turn. Nobody knows how long they take alone, or it is known."""
    arbiter = Arbiter(clock := VirtualClock())
    shares = [next(iter(arbiter.join(name, [Unit.CPU], lambda: None).values())) for name in "ab"]
    pool = arbiter.pools[Unit.CPU]
    pool.limit = 2
    for _ in range(50):
        turns = [share.start(Unit.CPU, 20 * MS) for share in shares]
        clock.advance(20 * MS)
        for share, turn in zip(shares, turns, strict=True):
            assert turn is not None
            share.end(turn, 10 * MS if is_known else 20 * MS, is_known=is_known)
        pool.limit = 2
    assert pool.concurrency.speedups
    assert all(each == pytest.approx(1.0, abs=0.06) for each in pool.concurrency.speedups.values())


def test_a_model_that_was_idle_has_saved_nothing_up() -> None:
    busy, late = Load("busy", 10 * MS), Load("late", 10 * MS, wanted_ns=None)
    room = Room(busy, late, shared=EVICTING)
    room.run(10)
    before = busy.done_ns
    late.wanted_ns = room.clock.now_ns()
    room.run(4)
    assert busy.done_ns - before > 1.5e9


def test_who_waits_for_a_model_that_hangs_computes_after_a_while() -> None:
    clock = VirtualClock()
    arbiter = Arbiter(clock)
    (hung,) = arbiter.join("hung", [Unit.CPU], lambda: None).values()
    (other,) = arbiter.join("other", [Unit.AMX], lambda: None).values()
    assert hung.start(Unit.CPU, 5 * MS)
    assert other.start(Unit.AMX, 50 * MS) is None
    assert other.patience_ends_ns() == PATIENCE_NS
    clock.advance(PATIENCE_NS - 1)
    assert other.start(Unit.AMX, 50 * MS) is None
    clock.advance(1)
    turn = other.start(Unit.AMX, 50 * MS)
    assert turn is not None
    other.end(turn, 50 * MS)
    assert other.waited_ns == PATIENCE_NS


def test_what_hangs_holds_up_nobody_after_a_while() -> None:
    clock = VirtualClock()
    arbiter = Arbiter(clock)
    hung = [arbiter.join(name, [Unit.CPU], lambda: None)[Unit.CPU] for name in "ab"]
    (other,) = arbiter.join("other", [Unit.AMX], lambda: None).values()
    assert hung[0].start(Unit.CPU, 0)
    clock.advance(PATIENCE_NS)
    assert hung[1].start(Unit.CPU, 0)
    clock.advance(PATIENCE_NS)
    for _ in range(5):
        turn = other.start(Unit.AMX, 5 * MS)
        assert turn is not None
        clock.advance(5 * MS)
        other.end(turn, 5 * MS)
    assert other.waited_ns == 0


def test_who_waits_is_woken_when_another_asks_and_there_is_room() -> None:
    clock, woken = VirtualClock(), []
    arbiter = Arbiter(clock)
    hung, waiting, third = (
        arbiter.join(name, [Unit.CPU], lambda name=name: woken.append(name))[Unit.CPU] for name in "abc"
    )
    assert hung.start(Unit.CPU, 0)
    clock.advance(MS)
    assert waiting.start(Unit.CPU, 5 * MS) is None
    clock.advance(PATIENCE_NS - MS)
    assert third.start(Unit.CPU, 5 * MS) is None, "the other comes first"
    assert woken == ["b"]
    assert waiting.start(Unit.CPU, 5 * MS)


def test_units_with_hardware_of_their_own_do_not_wait() -> None:
    arbiter = Arbiter(VirtualClock(), emulated=[Unit.ANE])
    assert [arbiter.pool_of(unit) for unit in Unit] == [Unit.CPU, Unit.CPU, Unit.GPU, Unit.CPU]
    (cpu,) = arbiter.join("a", [Unit.CPU], lambda: None).values()
    (gpu,) = arbiter.join("b", [Unit.GPU], lambda: None).values()
    assert cpu.start(Unit.CPU, MS)
    assert gpu.start(Unit.GPU, MS)


def test_a_turn_that_is_given_back_goes_to_the_next() -> None:
    clock, woken = VirtualClock(), []
    arbiter = Arbiter(clock)
    shares = [arbiter.join(name, [Unit.CPU], lambda name=name: woken.append(name))[Unit.CPU] for name in "abc"]
    turn = shares[0].start(Unit.CPU, MS)
    assert turn is not None
    assert [each.start(Unit.CPU, MS) for each in shares[1:]] == [None, None]
    clock.advance(MS)
    shares[0].end(turn, MS)
    assert woken == ["b"]
    assert shares[1].has_turn
    shares[1].withdraw()
    assert woken == ["b", "c"]
    assert shares[2].start(Unit.CPU, MS)
    shares[1].withdraw()
    assert shares[1].start(Unit.CPU, MS) is None, "it waits as anyone"
    shares[1].close()
    assert not arbiter.pools[Unit.CPU].waiting


def test_the_instances_of_a_model_are_one_turn() -> None:
    clock = VirtualClock()
    arbiter = Arbiter(clock)
    (share,) = arbiter.join("a", [Unit.CPU], lambda: None).values()
    (other,) = arbiter.join("b", [Unit.CPU], lambda: None).values()
    clock.advance(MS)
    turns = [share.start(Unit.CPU, 5 * MS) for _ in range(3)]
    assert all(turns)
    assert other.start(Unit.CPU, 5 * MS) is None
    assert share.start(Unit.CPU, 5 * MS) is not None, "its clock has not passed the other's"
    clock.advance(MS)
    share.end(turns[0], MS, next_ns=5 * MS)
    assert share.start(Unit.CPU, 5 * MS) is None, "now it has"
