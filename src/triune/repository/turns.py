"""Limits the number of concurrent loads; slow loads do not block the others for ever."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator

from triune.core.clock import Clock, Timer


class Turns:
    """A fair semaphore: `num_at_once` callers may work at once, in the order of arrival.

    A caller that has been first in line for `patience_ns` proceeds above the limit, since running work may never end.
    So the number of concurrent workers can grow slowly, one at a time.
    """

    def __init__(self, num_at_once: int, patience_ns: int, clock: Clock) -> None:
        """Args:
        num_at_once: the limit, at least 1.
        patience_ns: how long the first in line waits.
        clock: the clock.
        """
        self._num_free = num_at_once
        self._patience_ns = patience_ns
        self._clock = clock
        self._line: deque[asyncio.Future[None]] = deque()
        self._timer: Timer | None = None

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn, which ends with the context."""
        if self._num_free <= 0 or self._line:
            place = asyncio.get_running_loop().create_future()
            self._line.append(place)
            self._move_up()
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._end()
                elif place in self._line:
                    self._line.remove(place)
                raise
        else:
            self._num_free -= 1
        try:
            yield
        finally:
            self._end()

    def _end(self) -> None:
        self._num_free += 1
        self._admit(self._num_free)

    def _admit(self, count: int) -> None:
        while count > 0 and self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                self._num_free -= 1
                count -= 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._move_up()

    def _move_up(self) -> None:
        """Start the timer of the first in line."""
        if self._line and self._timer is None:
            self._timer = self._clock.call_at(self._clock.now_ns() + self._patience_ns, self._go_ahead)

    def _go_ahead(self) -> None:
        self._timer = None
        self._admit(1)
