"""What every clock does, whoever moves its time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from triune.core.clock import Clock, MonotonicClock, VirtualClock

MS = 1_000_000


@pytest.fixture(params=["monotonic", "virtual"])
def clock_and_wait(request: pytest.FixtureRequest) -> tuple[Clock, Callable[[], Awaitable[None]]]:
    """A clock, and a way to let at least 50 ms of its time pass."""
    if request.param == "monotonic":
        return MonotonicClock(), lambda: asyncio.sleep(0.1)
    virtual = VirtualClock()

    async def advance() -> None:
        virtual.advance(50 * MS)

    return virtual, advance


ClockAndWait = tuple[Clock, Callable[[], Awaitable[None]]]


async def test_time_goes_on_and_never_back(clock_and_wait: ClockAndWait) -> None:
    clock, wait = clock_and_wait
    before_ns = clock.now_ns()
    assert clock.now_ns() >= before_ns
    await wait()
    assert clock.now_ns() >= before_ns + 50 * MS


async def test_calls_are_made_once_in_the_order_of_their_times(clock_and_wait: ClockAndWait) -> None:
    clock, wait = clock_and_wait
    calls: list[str] = []
    now_ns = clock.now_ns()
    clock.call_at(now_ns + 30 * MS, lambda: calls.append("late"))
    clock.call_at(now_ns + 5 * MS, lambda: calls.append("early"))
    assert calls == []
    await wait()
    await wait()
    assert calls == ["early", "late"]


async def test_a_cancelled_call_is_not_made(clock_and_wait: ClockAndWait) -> None:
    clock, wait = clock_and_wait
    calls: list[str] = []
    timer = clock.call_at(clock.now_ns() + 5 * MS, lambda: calls.append("cancelled"))
    done = clock.call_at(clock.now_ns() + 1 * MS, lambda: calls.append("made"))
    timer.cancel()
    await wait()
    done.cancel()
    assert calls == ["made"]
