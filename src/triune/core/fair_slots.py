"""A limit for concurrent work whose cost is known, so that cheap work does not wait behind expensive work."""

import asyncio
import contextlib
import heapq
from collections.abc import AsyncGenerator


class FairSlots:
    """A semaphore. At most `num_slots` callers work at the same time; those that wait go on in order of their turns.

    A caller's turn is its cost, added to the cost of all work that had begun when it arrived. So callers of equal cost
    go in order of arrival, and a cheap one passes the expensive ones before it. No caller waits forever: whoever
    arrives when more than the caller's own cost has begun in the meantime goes after it.

    Make and use it on the event loop's thread.
    """

    def __init__(self, num_slots: int) -> None:
        """Args:
        num_slots: the limit, at least 1.
        """
        self._num_free = num_slots
        self._begun = 0
        self._num_arrived = 0
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def slot(self, cost: int) -> AsyncGenerator[None]:
        """Wait for a slot. It is free again when the context ends.

        Args:
            cost: of the caller's work, in any unit that all callers share.
        """
        self._num_arrived += 1
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self._begun + cost, self._num_arrived, cost, future))
        self._admit()
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():
                self._free()
            raise
        try:
            yield
        finally:
            self._free()

    def _free(self) -> None:
        self._num_free += 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and (self._num_free or self._waiting[0][3].done()):
            _, _, cost, future = heapq.heappop(self._waiting)
            if not future.done():
                self._num_free -= 1
                self._begun += cost
                future.set_result(None)
