"""Large bodies and answers share the iterations of the loop."""

import asyncio

from triune.frontends.bodies.pacing import ITERATION_BYTES, Pacer

PIECE_BYTES = ITERATION_BYTES // 4


async def test_an_iteration_copies_no_more_than_its_share() -> None:
    pacer = Pacer()
    copied: list[int] = []
    iteration = 0

    async def write(num_pieces: int) -> None:
        for _ in range(num_pieces):
            await pacer.pace(PIECE_BYTES)
            copied.append(iteration)

    writers = asyncio.gather(*(write(5) for _ in range(20)))
    while not writers.done():
        await asyncio.sleep(0)
        iteration += 1
    await writers

    assert len(copied) == 100
    assert max(copied.count(each) for each in set(copied)) <= 2 * ITERATION_BYTES // PIECE_BYTES


async def test_who_waits_longest_goes_on_first() -> None:
    pacer = Pacer()
    order: list[str] = []
    assert pacer.spend(ITERATION_BYTES)
    for name in "abc":
        pacer.wait(ITERATION_BYTES, lambda name=name: order.append(name))

    seen: list[str] = []
    while len(order) < 3:
        await asyncio.sleep(0)
        seen.append("".join(order))

    assert seen[-3:] == ["a", "ab", "abc"]


async def test_alone_nobody_waits() -> None:
    pacer = Pacer()

    assert not pacer.spend(PIECE_BYTES)
    await asyncio.wait_for(pacer.pace(PIECE_BYTES), 60)


async def test_who_gave_up_costs_the_others_nothing() -> None:
    pacer = Pacer()
    gone = asyncio.create_task(pacer.pace(ITERATION_BYTES))
    waiting = asyncio.create_task(pacer.pace(PIECE_BYTES))
    asyncio.get_running_loop().call_soon(gone.cancel)
    pacer.spend(ITERATION_BYTES)

    await asyncio.wait_for(waiting, 60)

    await asyncio.wait([gone])
    assert gone.cancelled()


async def test_the_loop_rests_when_nothing_is_copied() -> None:
    loop = asyncio.get_running_loop()
    calls: list[object] = []

    class Counted:
        def call_soon(self, callback: object) -> None:
            calls.append(callback)
            loop.call_soon(callback)  # type: ignore[arg-type]

    pacer = Pacer(Counted())  # type: ignore[arg-type]
    pacer.spend(1)
    for _ in range(10):
        await asyncio.sleep(0)

    assert len(calls) == 1
