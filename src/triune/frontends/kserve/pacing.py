"""How much of large bodies and answers all connections together copy before the event loop looks at anything else."""

import asyncio
from collections import deque
from collections.abc import Callable

ITERATION_BYTES = 256 << 10
"""What one iteration of the loop copies: a fraction of a millisecond.

Without a limit over all of them, twenty clients of megabytes each have their quarter of a megabyte read and another
written in one iteration, and a small request waits for ten milliseconds of that.
"""


class Pacer:
    """Shares the loop's iterations among large bodies and answers, in the order in which they ask.

    Made and used on the loop's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Args:
        loop: the event loop; None takes the running one when it is first needed.
        """
        self._loop = loop
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._num_bytes = 0
        self._is_counting = False

    def spend(self, num_bytes: int) -> bool:
        """Count bytes that were copied. Returns whether this iteration's share is spent: then wait for a turn."""
        self._num_bytes += num_bytes
        if not self._is_counting:
            self._is_counting = True
            self._call_soon()
        return self._num_bytes >= ITERATION_BYTES

    def wait(self, num_bytes: int, go_on: Callable[[], None]) -> None:
        """Have `go_on` called, within an iteration whose share is not spent; it is about to copy so many bytes."""
        self._waiting.append((num_bytes, go_on))
        if not self._is_counting:
            self._is_counting = True
            self._call_soon()

    async def pace(self, num_bytes: int) -> None:
        """Wait until so many bytes may be copied."""
        if not self._waiting and self._num_bytes < ITERATION_BYTES:
            self.spend(num_bytes)
            return
        future = asyncio.get_running_loop().create_future()
        self.wait(num_bytes, lambda: None if future.done() else future.set_result(None))
        await future

    def _call_soon(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """An iteration of the loop begins."""
        self._num_bytes = 0
        while self._waiting and self._num_bytes < ITERATION_BYTES:
            num_bytes, go_on = self._waiting.popleft()
            self._num_bytes += num_bytes
            go_on()
        self._is_counting = bool(self._num_bytes or self._waiting)
        if self._is_counting:
            self._call_soon()
