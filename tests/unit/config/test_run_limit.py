"""One timer ends all runs that take too long, each at its own time."""

import math

from triune.config.limits import RunLimit
from triune.core.clock import VirtualClock

SECOND = 10**9


class Bench:
    def __init__(self, seconds: float = 5) -> None:
        self.clock = VirtualClock()
        self.running: dict[str, int] = {}
        self.ended: list[tuple[str, int]] = []
        self.successor = ""
        self.limit = RunLimit(self.clock, seconds, lambda: self.running.items(), self._end)

    def begin(self, name: str) -> None:
        self.running[name] = self.clock.now_ns()
        self.limit.watch()

    def _end(self, name: str) -> None:
        del self.running[name]
        self.ended.append((name, self.clock.now_ns() // SECOND))
        if self.successor:
            self.begin(self.successor)
            self.successor = ""


def test_each_run_ends_at_its_own_time() -> None:
    bench = Bench()
    for name in "abc":
        bench.begin(name)
        bench.clock.advance(2 * SECOND)
    bench.clock.advance(20 * SECOND)
    assert bench.ended == [("a", 5), ("b", 7), ("c", 9)]


def test_a_run_that_begins_when_another_is_ended_delays_no_third() -> None:
    bench = Bench()
    bench.begin("a")
    bench.clock.advance(SECOND)
    bench.begin("b")
    bench.successor = "c"
    bench.clock.advance(20 * SECOND)
    assert bench.ended == [("a", 5), ("b", 6), ("c", 10)]


def test_a_run_that_has_ended_in_time_is_left_alone_and_later_ones_are_watched() -> None:
    bench = Bench()
    bench.begin("a")
    bench.clock.advance(SECOND)
    bench.running.clear()
    bench.clock.advance(20 * SECOND)
    bench.begin("b")
    bench.clock.advance(20 * SECOND)
    assert bench.ended == [("b", 26)]


def test_without_a_limit_or_after_close_nothing_is_ended() -> None:
    for bench in (Bench(math.inf), Bench()):
        bench.begin("a")
        bench.limit.close()
        bench.clock.advance(100 * SECOND)
        assert bench.ended == []
