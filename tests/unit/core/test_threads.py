"""Work in threads of its own."""

import asyncio
import threading

import pytest

from triune.core.threads import in_thread, in_thread_or


async def test_what_it_returns_and_raises() -> None:
    assert await in_thread(max, 3, 4) == 4
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)


async def test_what_never_ends_takes_no_thread_from_others() -> None:
    never = threading.Event()
    waiting = [asyncio.create_task(in_thread(never.wait)) for _ in range(64)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(in_thread(max, 3, 4), 20) == 4
    never.set()
    await asyncio.gather(*waiting)


async def test_what_comes_after_it_was_given_up_is_dropped() -> None:
    go_on, dropped = threading.Event(), list[int]()
    came = threading.Event()

    def drop(result: int) -> None:
        dropped.append(result)
        came.set()

    def work() -> int:
        go_on.wait(20)
        return 7

    task = asyncio.create_task(in_thread_or(drop, work))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await in_thread(came.wait, 20)
    assert dropped == [7]
