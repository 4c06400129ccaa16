"""A limit for the number of concurrent loads. Loads that never end do not block the others forever."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator

from triune.core.clock import Clock, Timer


class LoadSlots:
    """A fair semaphore: at most `num_at_once` callers work at the same time, in the order of arrival.

    A caller that has been first in the queue for `patience_ns` goes on above the limit, since running work may never
    end. So the number of concurrent callers can grow, slowly, one at a time.
    """

    def __init__(self, num_at_once: int, patience_ns: int, clock: Clock) -> None:
        """Args:
        num_at_once: the limit, at least 1.
        patience_ns: how long the first caller in the queue waits before it goes on above the limit.
        clock: the clock.
        """
        self._num_free = num_at_once
        self._patience_ns = patience_ns
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: Timer | None = None

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncGenerator[None]:
        """Wait for a slot. It is free again when the context ends."""
        if self._num_free <= 0 or self._waiting:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            self._start_timer()
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._free()
                elif future in self._waiting:
                    self._waiting.remove(future)
                raise
        else:
            self._num_free -= 1
        try:
            yield
        finally:
            self._free()

    def _free(self) -> None:
        self._num_free += 1
        self._admit(self._num_free)

    def _admit(self, count: int) -> None:
        while count > 0 and self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                self._num_free -= 1
                count -= 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._start_timer()

    def _start_timer(self) -> None:
        """Start the timer after which the first caller in the queue goes on above the limit, unless it is running or
        the queue is empty.
        """
        if self._waiting and self._timer is None:
            self._timer = self._clock.call_at(self._clock.now_ns() + self._patience_ns, self._admit_above_limit)

    def _admit_above_limit(self) -> None:
        self._timer = None
        self._admit(1)
