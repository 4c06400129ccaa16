"""The Clock protocol. Code that waits or measures takes a Clock, so that tests can control time."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that a clock will make."""

    def cancel(self) -> None:
        """Cancel the call. Does nothing if it was already made."""
        ...


class Clock(Protocol):
    """Monotonic time in integer nanoseconds, and delayed callbacks."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary start; never goes back."""
        ...

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Call `callback` on the event loop's thread once now_ns() has reached `when_ns`."""
        ...


class MonotonicClock:
    """The clock of `time.monotonic_ns`; the running asyncio loop makes delayed calls."""

    # `now_ns` is the function itself, not a method that calls it: each request reads the clock five times.
    now_ns = staticmethod(time.monotonic_ns)

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Have the running event loop call `callback`. Raises RuntimeError if no loop is running."""
        return _LoopTimer(when_ns, callback)


class _LoopTimer:
    """A timer of the running event loop. uvloop counts whole milliseconds, so it may make the call up to 1.5 ms too
    early; the timer then waits for the remaining time.
    """

    __slots__ = ("_callback", "_handle", "_when_ns")

    def __init__(self, when_ns: int, callback: Callable[[], None]) -> None:
        self._when_ns = when_ns
        self._callback = callback
        self._handle = self._wait(time.monotonic_ns())

    def cancel(self) -> None:
        self._handle.cancel()

    def _wait(self, now_ns: int) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(max(0, self._when_ns - now_ns) / 1e9, self._fire)

    def _fire(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns < self._when_ns:
            self._handle = self._wait(now_ns)
        else:
            self._callback()


class VirtualClock:
    """A clock for tests and simulations, the reference implementation: its time stands still until `advance` is called.
    It needs no event loop.
    """

    def __init__(self) -> None:
        self._now_ns = 0
        self._timers: list[tuple[int, int, _VirtualTimer]] = []
        self._order = itertools.count()

    def now_ns(self) -> int:
        """The total time in nanoseconds by which the clock was advanced."""
        return self._now_ns

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Store `callback`; `advance` calls it."""
        timer = _VirtualTimer(callback)
        heapq.heappush(self._timers, (when_ns, next(self._order), timer))
        return timer

    def next_ns(self) -> int | None:
        """The time of the earliest call that was not cancelled; None if there is none."""
        while self._timers and self._timers[0][2].is_over:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, delta_ns: int) -> None:
        """Advance the time by `delta_ns`, and make the calls that are due, in order, each at its own time."""
        end_ns = self._now_ns + delta_ns
        while self._timers and self._timers[0][0] <= end_ns:
            when_ns, _, timer = heapq.heappop(self._timers)
            self._now_ns = max(self._now_ns, when_ns)
            timer.fire()
        self._now_ns = end_ns


class _VirtualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    @property
    def is_over(self) -> bool:
        return self._callback is None

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()
