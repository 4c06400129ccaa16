"""What every clock does, whoever moves its time, on every event loop."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

import pytest
import uvloop

from support.hand import Ticking
from triune.core.clock import Clock, MonotonicClock, VirtualClock

MS = 1_000_000

Wait: TypeAlias = Callable[[], Awaitable[None]]
Test: TypeAlias = Callable[[Clock, Wait], Coroutine[Any, Any, None]]
Run: TypeAlias = Callable[[Test], None]


def moved(clock: VirtualClock) -> tuple[Clock, Wait]:
    async def advance() -> None:
        clock.advance(50 * MS)

    return clock, advance


def by_itself() -> tuple[Clock, Wait]:
    return MonotonicClock(), lambda: asyncio.sleep(0.1)


CLOCKS = {
    "monotonic": (by_itself, asyncio.new_event_loop),
    "monotonic, uvloop": (by_itself, uvloop.new_event_loop),
    "virtual": (lambda: moved(VirtualClock()), asyncio.new_event_loop),
    "ticking": (lambda: moved(Ticking()), asyncio.new_event_loop),
}


@pytest.fixture(params=CLOCKS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test with a clock, and with a way to let at least 50 ms of its time pass."""
    make, new_loop = CLOCKS[request.param]

    def run(test: Test) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(*make()))

    return run


def test_time_goes_on_and_never_back(run: Run) -> None:
    async def test(clock: Clock, wait: Wait) -> None:
        before_ns = clock.now_ns()
        assert clock.now_ns() >= before_ns
        await wait()
        assert clock.now_ns() >= before_ns + 50 * MS

    run(test)


def test_calls_are_made_once_in_the_order_of_their_times(run: Run) -> None:
    async def test(clock: Clock, wait: Wait) -> None:
        calls: list[str] = []
        now_ns = clock.now_ns()
        clock.call_at(now_ns + 30 * MS, lambda: calls.append("late"))
        clock.call_at(now_ns + 5 * MS, lambda: calls.append("early"))
        assert calls == []
        await wait()
        await wait()
        assert calls == ["early", "late"]

    run(test)


def test_no_call_is_made_before_its_time(run: Run) -> None:
    async def test(clock: Clock, wait: Wait) -> None:
        lateness_ns: list[int] = []

        def call_after(delay_ns: int) -> None:
            when_ns = clock.now_ns() + delay_ns
            clock.call_at(when_ns, lambda: lateness_ns.append(clock.now_ns() - when_ns))

        # Each of these fractions of a millisecond is rounded in another way.
        for tenths in range(40):
            call_after(tenths * MS // 10)
            await asyncio.sleep(0.0003)
        await wait()
        assert len(lateness_ns) == 40
        assert min(lateness_ns) >= 0

    run(test)


def test_a_call_whose_time_is_over_is_made_too_and_on_the_loops_thread(run: Run) -> None:
    async def test(clock: Clock, wait: Wait) -> None:
        threads: list[threading.Thread] = []
        await wait()
        clock.call_at(clock.now_ns() - 5 * MS, lambda: threads.append(threading.current_thread()))
        assert threads == []
        await wait()
        assert threads == [threading.current_thread()]

    run(test)


def test_a_cancelled_call_is_not_made(run: Run) -> None:
    async def test(clock: Clock, wait: Wait) -> None:
        calls: list[str] = []
        timer = clock.call_at(clock.now_ns() + 5 * MS, lambda: calls.append("cancelled"))
        done = clock.call_at(clock.now_ns() + 1 * MS, lambda: calls.append("made"))
        timer.cancel()
        timer.cancel()
        await wait()
        done.cancel()
        assert calls == ["made"]

    run(test)
