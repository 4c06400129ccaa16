"""A limit for concurrent work with known costs, so that cheap work does not wait behind expensive work."""

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final, NamedTuple

_MOST_DONE: Final = 64
"""The lists of waiting callers also contain callers that wait no longer, until these outnumber those that wait by about
this number. Then they are removed.
"""


class _Waiting(NamedTuple):
    cost: int
    number: int
    future: asyncio.Future[None]


class FairSlots:
    """A semaphore. At most `num_slots` callers work at the same time. The next caller is the one with the lowest cost,
    or the first of several with the same cost. No caller waits forever: once the callers that overtook the
    longest-waiting caller have together cost as much as it does, it is next.

    Make and use it on the event loop's thread.
    """

    def __init__(self, num_slots: int) -> None:
        """Args:
        num_slots: the limit, at least 1.
        """
        self._num_free = num_slots
        self._num_arrived = 0
        self._num_waiting = 0
        self._passed = 0
        """The total cost of the callers that overtook the longest-waiting caller."""
        # `_by_arrival` and `_by_cost` each hold all waiting callers. A caller whose future is done is dropped when it
        # is the next one.
        self._by_arrival: deque[_Waiting] = deque()
        self._by_cost: list[_Waiting] = []

    @contextlib.asynccontextmanager
    async def slot(self, cost: int) -> AsyncGenerator[None]:
        """Wait for a slot. It is free again when the context ends.

        Args:
            cost: the cost of the caller's work, in any unit that all callers share.
        """
        self._num_arrived += 1
        self._num_waiting += 1
        self._forget_done()
        future = asyncio.get_running_loop().create_future()
        waiting = _Waiting(cost, self._num_arrived, future)
        self._by_arrival.append(waiting)
        heapq.heappush(self._by_cost, waiting)
        self._admit()
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._num_waiting -= 1
            else:
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
        while (oldest := self._oldest()) is not None and self._num_free:
            if self._passed >= oldest.cost:
                chosen = oldest
            else:
                while self._by_cost[0].future.done():
                    heapq.heappop(self._by_cost)
                chosen = self._by_cost[0]
            self._passed = 0 if chosen is oldest else self._passed + chosen.cost
            self._num_free -= 1
            self._num_waiting -= 1
            chosen.future.set_result(None)

    def _oldest(self) -> _Waiting | None:
        while self._by_arrival and self._by_arrival[0].future.done():
            self._by_arrival.popleft()
        if not self._by_arrival:
            return None
        return self._by_arrival[0]

    def _forget_done(self) -> None:
        if len(self._by_arrival) + len(self._by_cost) > 4 * self._num_waiting + _MOST_DONE:
            self._by_arrival = deque(each for each in self._by_arrival if not each.future.done())
            self._by_cost = sorted(self._by_arrival)
