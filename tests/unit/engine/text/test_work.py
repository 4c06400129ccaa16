"""Tokenizing and rendering in threads."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from triune.core.threads import in_thread
from triune.engine.text.work import TextWork


@pytest.mark.parametrize(("size", "most"), [(1_000, 4), (1_000_000, 1)])
async def test_callers_that_give_up_make_no_room_while_their_threads_work(size: int, most: int) -> None:
    text: Any = SimpleNamespace(token_bytes=())
    work = TextWork("m", text)
    begun, go_on = threading.Semaphore(0), threading.Event()

    def render() -> None:
        begun.release()
        go_on.wait(60)

    given_up = [asyncio.create_task(work.in_thread(render, size)) for _ in range(most)]
    for _ in range(most):
        assert await in_thread(begun.acquire)
    for each in given_up:
        each.cancel()
    further = asyncio.create_task(work.in_thread(render, size))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not begun.acquire(blocking=False)
    go_on.set()
    await further
    assert await asyncio.gather(*given_up, return_exceptions=True)
