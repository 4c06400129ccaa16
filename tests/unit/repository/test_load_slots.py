"""Loads that wait for others, and not for ever."""

import asyncio

from triune.core.clock import VirtualClock
from triune.repository.load_slots import LoadSlots

SECOND = 1_000_000_000


class Line:
    """Who works, and who may be told to end."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.slots = LoadSlots(2, 5 * SECOND, self.clock)
        self.working: list[int] = []
        self.ends: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def come(self, *names: int) -> None:
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._work(name))
        await self.settle()

    async def end(self, name: int) -> None:
        self.ends[name].set()
        await self.settle()

    async def wait(self, seconds: float) -> None:
        self.clock.advance(int(seconds * SECOND))
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def _work(self, name: int) -> None:
        async with self.slots.slot():
            self.working.append(name)
            await self.ends[name].wait()


async def test_so_many_at_once_in_order() -> None:
    line = Line()
    await line.come(1, 2, 3, 4)
    assert line.working == [1, 2]
    await line.end(2)
    assert line.working == [1, 2, 3]
    await line.end(1)
    assert line.working == [1, 2, 3, 4]


async def test_one_more_goes_ahead_each_time_the_first_has_waited_long() -> None:
    line = Line()
    await line.come(1, 2, 3, 4, 5)
    await line.wait(4.9)
    assert line.working == [1, 2]
    await line.wait(0.1)
    assert line.working == [1, 2, 3]
    await line.wait(4.9)
    assert line.working == [1, 2, 3]
    await line.wait(0.1)
    assert line.working == [1, 2, 3, 4]
    # Those beyond the number end before anybody else begins.
    await line.end(3)
    await line.end(4)
    assert line.working == [1, 2, 3, 4]
    await line.end(1)
    assert line.working == [1, 2, 3, 4, 5]


async def test_who_leaves_the_line_takes_nobodys_turn() -> None:
    line = Line()
    await line.come(1, 2, 3, 4)
    line.tasks[3].cancel()
    await line.settle()
    await line.end(1)
    assert line.working == [1, 2, 4]
    await line.come(5)
    line.tasks[5].cancel()
    await line.end(2)
    await line.end(4)
    await line.come(6, 7)
    assert line.working == [1, 2, 4, 6, 7]
