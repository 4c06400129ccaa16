"""A unit that slows down is noticed, once, and so is that it is as fast as before."""

import logging

import pytest

from support.hand import Bench
from triune.core.units import Unit
from triune.hardware.heat.slowing import LASTING_NS, SpeedWatch

MS = 1_000_000
SECOND = 1_000 * MS


def run(watch: SpeedWatch, milliseconds: float, seconds: float, now_ns: int, size: int = 64) -> tuple[int, list[bool]]:
    """Batches of that duration, one every 100 ms. Returns the time after them, and the changes of `is_slowed`."""
    changes: list[bool] = []
    for _ in range(int(seconds * 10)):
        now_ns += 100 * MS
        if watch.record(size, int(milliseconds * MS), now_ns):
            changes.append(watch.is_slowed)
    return now_ns, changes


def test_a_unit_that_slows_down_and_recovers() -> None:
    watch = SpeedWatch()
    now_ns, changes = run(watch, 10, 10, 0)
    assert (changes, watch.ratio) == ([], pytest.approx(1.0))
    now_ns, changes = run(watch, 20, 40, now_ns)
    assert (changes, watch.ratio) == ([True], pytest.approx(2.0, rel=0.01))
    now_ns, changes = run(watch, 13, 40, now_ns)
    assert (changes, watch.is_slowed) == ([], True), "between both thresholds nothing changes"
    _, changes = run(watch, 10, 40, now_ns)
    assert (changes, watch.is_slowed) == ([False], False)


def test_a_short_time_of_slowness_is_none() -> None:
    watch = SpeedWatch()
    now_ns, _ = run(watch, 10, 10, 0)
    for _ in range(5):
        now_ns, changes = run(watch, 20, LASTING_NS / SECOND / 2, now_ns)
        assert not changes
        now_ns, changes = run(watch, 10, 10, now_ns)
        assert not changes


def test_one_fast_batch_is_no_best_time() -> None:
    watch = SpeedWatch()
    now_ns, _ = run(watch, 10, 10, 0)
    watch.record(64, MS // 10, now_ns)
    _, changes = run(watch, 10, 60, now_ns)
    assert not changes


def test_noise_alone_is_no_slowing() -> None:
    watch = SpeedWatch()
    now_ns = 0
    for number in range(3000):
        now_ns += 100 * MS
        assert not watch.record(64, 10 * MS + (number * 7919 % 101 - 50) * MS // 20, now_ns)


def test_larger_batches_are_not_slower_ones() -> None:
    watch = SpeedWatch()
    now_ns, _ = run(watch, 10, 20, 0, size=64)
    now_ns, changes = run(watch, 80, 20, now_ns, size=512)
    assert not changes
    _, changes = run(watch, 160, 60, now_ns, size=512)
    assert changes == [True]


def test_sizes_that_clients_choose_take_limited_memory() -> None:
    watch = SpeedWatch()
    now_ns, _ = run(watch, 10, 10, 0)
    for size in range(1000, 3000):
        now_ns += MS
        watch.record(size, 5 * MS, now_ns)
    assert len(watch._sizes) <= 64
    _, changes = run(watch, 20, 40, now_ns)
    assert changes == [True], "a size that is often seen is not forgotten"


async def test_a_dispatcher_tells_and_logs_it_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench()
    executable = bench.workers[0].executable
    unit, compute = executable.unit, executable.run

    def run_batches(milliseconds: int, seconds: int) -> None:
        executable.run = lambda inputs, outputs: (bench.clock.advance(milliseconds * MS), compute(inputs, outputs))[1]
        for _ in range(seconds * 10):
            future = bench.send(1)
            bench.finish()
            assert future.done()
            bench.clock.advance((100 - milliseconds) * MS)

    run_batches(10, 10)
    assert bench.statistics.slowdowns[unit] == pytest.approx(1.0)
    assert bench.statistics.slowed == set()
    run_batches(30, 40)
    assert bench.statistics.slowed == {Unit.CPU}
    assert bench.statistics.slowdowns[unit] == pytest.approx(3.0, rel=0.01)
    assert caplog.text.count("'cpu' has slowed down: batches take") == 1
    run_batches(10, 40)
    assert bench.statistics.slowed == set()
    assert caplog.text.count("'cpu' is as fast as before") == 1
