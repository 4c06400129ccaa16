"""Signals that end a server, whatever holds its loop. The process's end is stood in for by a list."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from triune.core.threads import NoThreadError
from triune.lifetime.ending import EXIT_ABORTED, EXIT_TIMED_OUT, Ending


class Ended:
    """Where the exit codes go. Whoever would have ended the process waits here for ever."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.came = threading.Event()
        self.last_acts = 0

    def leave(self, code: int) -> None:
        self.code = code
        self.came.set()
        threading.Event().wait()

    def last_act(self) -> None:
        self.last_acts += 1


@pytest.fixture(autouse=True)
def hung_up() -> Iterator[None]:
    """SIGHUP has its default action, also where the tests were started by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


async def test_the_first_signal_asks_to_stop() -> None:
    ended = Ended()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with Ending(600, ended.last_act, leave=ended.leave) as ending:
            os.kill(os.getpid(), number)
            await asyncio.wait_for(ending.stop.wait(), 60)
    assert ended.code is None


def hold(until: threading.Event) -> None:
    """Hold the loop's thread."""
    assert until.wait(60), "it never came"


@pytest.mark.parametrize("hold_log", [False, True])
async def test_the_second_ends_the_process_while_the_loop_is_held(hold_log: bool) -> None:
    ended = Ended()
    last_act: Callable[[], object] = threading.Event().wait if hold_log else ended.last_act
    with Ending(600, last_act, leave=ended.leave):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        hold(ended.came)
    assert ended.code == EXIT_ABORTED
    assert ended.last_acts == (0 if hold_log else 1)


async def test_what_is_not_drained_in_time_ends_the_process_while_the_loop_is_held() -> None:
    ended = Ended()
    with Ending(0.01, ended.last_act, leave=ended.leave):
        os.kill(os.getpid(), signal.SIGTERM)
        hold(ended.came)
    assert (ended.code, ended.last_acts) == (EXIT_TIMED_OUT, 1)


async def test_what_does_not_close_ends_the_process_too() -> None:
    ended = Ended()
    with Ending(0.02, ended.last_act, close_seconds=0.01, leave=ended.leave) as ending:
        ending.drained()
        os.kill(os.getpid(), signal.SIGTERM)
        hold(ended.came)
    assert ended.code == EXIT_TIMED_OUT


@pytest.mark.parametrize("num_signals", [1, 2])
async def test_a_system_without_threads_ends_the_process_too(num_signals: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Ended()
    with Ending(0.05 if num_signals == 1 else 600, ended.last_act, leave=ended.leave) as ending:

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", start)
        for _ in range(num_signals):
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(ending.stop.wait(), 60)
        hold(ended.came)
    assert (ended.code, ended.last_acts) == (EXIT_TIMED_OUT if num_signals == 1 else EXIT_ABORTED, 1)


async def test_a_server_that_cannot_start_its_threads_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    with pytest.raises(NoThreadError, match="no thread"), Ending(600, lambda: None):
        pass
    started[0].join(60)
    assert not started[0].is_alive()


async def test_the_threads_end_with_it() -> None:
    before = set(threading.enumerate())
    with Ending(600, lambda: None):
        mine = set(threading.enumerate()) - before
    for each in mine:
        each.join(60)
    assert len(mine) == 3
    assert not any(each.is_alive() for each in mine)


async def test_handlers_are_as_they_were() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Ending(600, lambda: None):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_a_terminal_that_is_closed_is_no_second_signal() -> None:
    ended = Ended()
    with Ending(600, ended.last_act, leave=ended.leave) as ending:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(ending.stop.wait(), 60)
        os.kill(os.getpid(), signal.SIGHUP)
        assert not ended.came.wait(0.2)
        os.kill(os.getpid(), signal.SIGTERM)
        hold(ended.came)
    assert ended.code == EXIT_ABORTED


async def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Ending(600, lambda: None) as ending:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            await asyncio.sleep(0)
            assert not ending.stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)
