"""Limit the bytes of large bodies that all connections together copy in one iteration of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable

ITERATION_BYTES = 256 << 10
"""How many bytes all connections together copy in one iteration of the loop. That takes a fraction of a millisecond.

Without this limit, twenty clients with bodies of megabytes would each read and write a quarter of a megabyte in one
iteration, and a small request would wait ten milliseconds for them.
"""


class Pacer:
    """Lets large bodies of requests and responses copy ITERATION_BYTES in each iteration of the event loop.

    Waiting bodies continue in the order of arrival. Make and use it on the event loop's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Args:
        loop: the event loop; None takes the running loop at the first call.
        """
        self._loop = loop
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._num_bytes = 0
        self._is_counting = False

    @property
    def is_spent(self) -> bool:
        """Whether the byte budget of this iteration is used up, or other bodies wait: call `wait` then, not `spend`."""
        return self._num_bytes >= ITERATION_BYTES or bool(self._waiting)

    def spend(self, num_bytes: int) -> bool:
        """Count copied bytes.

        Returns:
            whether the bytes of this iteration are used up, so that the caller must call `wait`.
        """
        self._num_bytes += num_bytes
        if not self._is_counting:
            self._is_counting = True
            self._call_soon()
        return self._num_bytes >= ITERATION_BYTES

    def wait(self, num_bytes: int, go_on: Callable[[], None]) -> None:
        """Call `go_on`, which copies `num_bytes`, in the first loop iteration whose byte budget is not used up."""
        self._waiting.append((num_bytes, go_on))
        if not self._is_counting:
            self._is_counting = True
            self._call_soon()

    async def pace(self, num_bytes: int) -> None:
        """Wait until `num_bytes` may be copied."""
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
        """Start an iteration: reset the count, and call waiting functions until the bytes are used up."""
        self._num_bytes = 0
        while self._waiting and self._num_bytes < ITERATION_BYTES:
            num_bytes, go_on = self._waiting.popleft()
            self._num_bytes += num_bytes
            go_on()
        self._is_counting = bool(self._num_bytes or self._waiting)
        if self._is_counting:
            self._call_soon()
