"""Callers that send requests to a loaded model one after the other, and their measurements."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from triune.core.clock import Clock
from triune.core.servable import Call, Servable
from triune.tuning.measurement import LoadLevel

_WARM_UP_SHARE = 0.25
"""The fraction of the time in which callers send requests that is not measured. It is at the beginning, when the
dispatcher tries units and batch sizes.
"""
_NUM_WARM_UP = 3


@dataclass(slots=True)
class _Window:
    """The measured time of a load.

    Attributes:
        began_ns: when it began; 0 until then.
        ended_ns: when it ended; 0 until then.
        num_answered: the number of requests that were answered in it.
        num_warm_up: the number of requests that were answered before it.
    """

    began_ns: int = 0
    ended_ns: int = 0
    num_answered: int = 0
    num_warm_up: int = 0


async def load_level(
    servable: Servable,
    calls: Sequence[Call],
    callers: int,
    seconds: float,
    clock: Clock,
    joules: Callable[[], Awaitable[float]] | None = None,
) -> LoadLevel:
    """Send requests from a number of callers, and measure. Each caller sends its next request when it has an answer.

    The measured time ends no earlier than every caller has had an answer, however long that takes.

    Args:
        servable: the model.
        calls: the requests, which are sent in turn.
        callers: the number of concurrent callers, each with one request at a time.
        seconds: the time of the load. A quarter of it, and at least three requests of each caller, are not measured.
        clock: the clock.
        joules: the joules that the model has used so far; None if they are not metered.

    Raises:
        TriuneError: a request failed.
    """
    window = _Window()
    latencies_ns: list[int] = []
    stop = asyncio.Event()

    async def call(first: int) -> None:
        turn = first
        while not stop.is_set():
            sent_ns = clock.now_ns()
            future = servable.submit(replace(calls[turn % len(calls)]))
            turn += callers
            if future.done():
                # Yield to the other callers, since a model that runs on the event loop's thread answers at once.
                await asyncio.sleep(0)
            await future
            now_ns = clock.now_ns()
            if not window.began_ns:
                window.num_warm_up += 1
            else:
                # Requests under way at the end count, too: without them, the slowest requests would be missing.
                latencies_ns.append(now_ns - sent_ns)
                window.num_answered += not window.ended_ns

    async def measure() -> tuple[float, float]:
        await _until(clock, seconds * _WARM_UP_SHARE, lambda: window.num_warm_up >= _NUM_WARM_UP * callers)
        before = await joules() if joules is not None else 0.0
        window.began_ns = clock.now_ns()
        await _until(clock, seconds * (1 - _WARM_UP_SHARE), lambda: window.num_answered >= callers)
        window.ended_ns = clock.now_ns()
        stop.set()
        return before, (window.ended_ns - window.began_ns) / 1e9

    async with asyncio.TaskGroup() as group:
        measuring = group.create_task(measure())
        for index in range(callers):
            group.create_task(call(index))
    before, taken = measuring.result()
    used = await joules() - before if joules is not None else None
    p50, p99 = (float(np.percentile(latencies_ns, share, method="higher")) / 1e6 for share in (50, 99))
    return LoadLevel(
        callers,
        window.num_answered,
        window.num_answered / taken,
        p50,
        p99,
        # The joules include those of requests that were under way when the measured time began or ended, so they are
        # divided by the number of all answers.
        None if used is None else used / len(latencies_ns),
    )


async def _until(clock: Clock, seconds: float, is_enough: Callable[[], bool]) -> None:
    """Wait until the time is over and `is_enough` returns True."""
    ends_ns = clock.now_ns() + int(seconds * 1e9)
    while clock.now_ns() < ends_ns or not is_enough():
        left = (ends_ns - clock.now_ns()) / 1e9
        await asyncio.sleep(max(left, 0.002))
