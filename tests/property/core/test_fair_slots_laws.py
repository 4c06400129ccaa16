"""Laws of `FairSlots`, whatever arrives, leaves and ends in which order."""

import asyncio
import contextlib

from hypothesis import given
from hypothesis import strategies as st

from triune.core.fair_slots import FairSlots

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from([1, 2, 10, 1000])),
        st.tuples(st.sampled_from(["end", "leave"]), st.integers(0, 9)),
    ),
    max_size=40,
)


class Caller:
    def __init__(self, slots: FairSlots, cost: int, begun: "list[Caller]") -> None:
        self.cost = cost
        self.end = asyncio.Event()
        self.task = asyncio.ensure_future(self._work(slots, begun))

    async def _work(self, slots: FairSlots, begun: "list[Caller]") -> None:
        async with slots.slot(self.cost):
            begun.append(self)
            await self.end.wait()


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


@given(num_slots=st.integers(1, 3), actions=ACTIONS)
def test_turns(num_slots: int, actions: list[tuple[str, int]]) -> None:
    asyncio.run(_check(num_slots, actions))


async def _check(num_slots: int, actions: list[tuple[str, int]]) -> None:
    slots, callers, begun = FairSlots(num_slots), list[Caller](), list[Caller]()
    # Who has waited longest, and how many had begun when that was so first.
    oldest: tuple[Caller | None, int] = (None, 0)

    async def check() -> None:
        nonlocal oldest
        await settle()
        running = [each for each in begun if not each.task.done()]
        waiting = [each for each in callers if each not in begun and not each.task.done()]
        assert len(running) <= num_slots
        assert not waiting or len(running) == num_slots, "a slot is free while somebody waits"
        for late in begun:
            for each in waiting:
                if callers.index(each) < callers.index(late):
                    assert late.cost < each.cost, "only what is cheaper passes"
        first = waiting[0] if waiting else None
        if first is not oldest[0]:
            oldest = first, len(begun)
        elif first is not None:
            passed = [each.cost for each in begun[oldest[1] :]]
            assert sum(passed[:-1]) < first.cost, "nobody is passed for ever"

    for action, number in actions:
        if action == "come":
            callers.append(Caller(slots, number, begun))
        elif callers:
            caller = callers[number % len(callers)]
            if action == "leave":
                caller.task.cancel()
            elif caller in begun:
                caller.end.set()
        await check()
    for each in callers:
        each.end.set()
    await asyncio.wait_for(asyncio.gather(*(each.task for each in callers), return_exceptions=True), 60)
    assert all(each in begun or each.task.cancelled() for each in callers)
    with contextlib.suppress(asyncio.CancelledError):
        async with slots.slot(1):
            pass


def test_a_cheap_caller_passes_all_expensive_ones_that_wait() -> None:
    async def check() -> None:
        slots, begun = FairSlots(1), list[Caller]()
        expensive = [Caller(slots, 1000, begun) for _ in range(8)]
        for each in expensive:
            await settle()
            cheap = Caller(slots, 1, begun)
            each.end.set()
            await settle()
            assert begun[-1] is cheap, "also after the expensive ones have waited for long"
            cheap.end.set()
        await asyncio.gather(*(each.task for each in expensive))

    asyncio.run(check())


def test_those_that_have_ended_are_forgotten_while_others_wait() -> None:
    async def check() -> None:
        slots, begun = FairSlots(1), list[Caller]()
        expensive = [Caller(slots, 1_000_000, begun) for _ in range(3)]
        for _ in range(500):
            await settle()
            cheap = Caller(slots, 1, begun)
            begun[-1].end.set()
            await settle()
            assert begun[-1] is cheap
            assert len(slots._by_arrival) + len(slots._by_cost) < 100
        for each in (*expensive, begun[-1]):
            each.end.set()
        await asyncio.gather(*(each.task for each in expensive))

    asyncio.run(check())
