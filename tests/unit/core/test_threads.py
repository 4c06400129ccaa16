"""Work in threads of its own."""

import asyncio
import threading

import pytest

from triune.core.threads import NoThreadError, in_thread, in_thread_or, in_thread_or_here, in_thread_to_its_end


async def test_what_it_returns_and_raises() -> None:
    assert await in_thread(max, 3, 4) == 4
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)


async def test_what_never_ends_takes_no_thread_from_others() -> None:
    never = threading.Event()
    waiting = [asyncio.create_task(in_thread(never.wait)) for _ in range(64)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(in_thread(max, 3, 4), 60) == 4
    never.set()
    await asyncio.gather(*waiting)


async def test_what_comes_after_it_was_given_up_is_dropped() -> None:
    go_on, dropped = threading.Event(), list[int]()
    came = threading.Event()

    def drop(result: int) -> None:
        dropped.append(result)
        came.set()

    def work() -> int:
        go_on.wait(60)
        return 7

    task = asyncio.create_task(in_thread_or(drop, work))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await in_thread(came.wait, 20)
    assert dropped == [7]


async def test_what_is_given_up_waits_for_the_end_of_its_thread() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(60)
        ended.set()

    task = asyncio.create_task(in_thread_to_its_end(work))
    assert await in_thread(begun.wait, 60)
    task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    with pytest.raises(ZeroDivisionError):
        await in_thread_to_its_end(divmod, 1, 0)


def _no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


async def test_a_thread_that_cannot_be_had_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    _no_more_threads(monkeypatch)
    with pytest.raises(NoThreadError, match="no thread for more work: can't start new thread"):
        await in_thread(max, 3, 4)


async def test_what_has_to_be_done_is_done_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await in_thread_or_here(max, 3, 4) == 4
    _no_more_threads(monkeypatch)
    assert await in_thread_or_here(max, 3, 4) == 4


async def test_what_comes_too_late_is_dropped_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, dropped = threading.Event(), list[int]()

    def work() -> int:
        go_on.wait(60)
        return 7

    task = asyncio.create_task(in_thread_or(dropped.append, work))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    _no_more_threads(monkeypatch)
    go_on.set()
    while not dropped:
        await asyncio.sleep(0.01)
    assert dropped == [7]
