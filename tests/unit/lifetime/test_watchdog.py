"""What is told of a loop that is held."""

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from triune.lifetime.watchdog import Watchdog


class Heard(logging.Handler):
    """The watchdog's lines; `came` is set by each."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.came.set()


@pytest.fixture
def heard() -> Iterator[Heard]:
    logger, handler = logging.getLogger("triune.lifetime.watchdog"), Heard()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def hold_the_loop(heard: Heard) -> None:
    assert heard.came.wait(60), "nobody said a word"


async def test_a_hold_is_told_once_with_its_place(heard: Heard) -> None:
    with Watchdog(limit_seconds=0.01, pause_seconds=0.01):
        hold_the_loop(heard)
        heard.came.clear()
        # It is asked again and again meanwhile.
        while not heard.came.is_set():
            await asyncio.sleep(0.001)
    first, second = heard.lines[:2]
    assert "the event loop is held for more than 0.01 s" in first
    assert "hold_the_loop (" in first
    assert "the event loop goes on after" in second


async def test_a_loop_that_answers_is_not_mentioned(heard: Heard) -> None:
    with Watchdog(limit_seconds=30, pause_seconds=0.001):
        await asyncio.sleep(0.02)
    assert heard.lines == []
