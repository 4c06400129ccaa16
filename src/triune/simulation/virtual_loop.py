"""An event loop on a virtual clock. When nothing is left to do, the clock advances to the time of its next call."""

import asyncio
import selectors

from triune.core.clock import VirtualClock
from triune.core.errors import InternalError


class _ClockSelector(selectors.SelectSelector):
    """A selector that never waits: where the event loop would sleep, the virtual clock advances instead."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Advance the clock to its next call if the loop has nothing to do.

        `timeout` is then None: the loop would let its selector wait for any time.

        Raises:
            InternalError: the clock has no call either, so that the loop would wait forever.
        """
        if timeout is None:
            next_ns = self._clock.next_ns()
            if next_ns is None:
                raise InternalError("a simulation waits for something that does not come")
            self._clock.advance(max(0, next_ns - self._clock.now_ns()))
        return []


def virtual_loop(clock: VirtualClock) -> asyncio.AbstractEventLoop:
    """A loop that runs everything that is ready, and then advances the clock to its next call. Only the clock has
    timers: `asyncio.sleep` and the like wait in real time and must not be used in this loop.
    """
    return asyncio.SelectorEventLoop(_ClockSelector(clock))
