"""Work that grows with a request, off the event loop: in threads, and where a library holds the GIL in processes.

What one call may hold the loop with is about a millisecond; `SMALL_BYTES` of anything take less.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from triune.frontends.kserve.budget import Reservation
from triune.frontends.kserve.parser_processes import ParserProcesses

P = ParamSpec("P")
T = TypeVar("T")

SMALL_BYTES = 16 << 10
"""What is encoded, decoded or compressed at once, where it is. Beyond that it goes off the loop."""

NUM_FREED = 64
"""How many pieces of an answer are freed at once."""

_STEP_BYTES = 1 << 20
_MAX_THREADS = 4
_PAUSE_SECONDS = 50e-6
_SWITCH_SECONDS = 0.5e-3


def pause() -> None:
    """Let other threads have the GIL: called by a thread after each millisecond of work that holds it."""
    # Longer than it takes to wake a thread: who releases the GIL for less takes it again before anyone else does.
    time.sleep(_PAUSE_SECONDS)


@contextlib.contextmanager
def freed_gradually(*texts: list[Any]) -> Generator[None]:
    """What is put into these lists within is freed little by little if it comes to nothing: a GB takes 0.1 s."""
    try:
        yield
    except BaseException:
        for each in texts:
            while each:
                del each[-NUM_FREED:]
                pause()
        raise


@contextlib.contextmanager
def short_switch_interval() -> Generator[None]:
    """Have threads that run Python give up the GIL within half a millisecond, where Python's own time is five.

    The event loop waits for so long whenever it wakes while one of them runs.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Offload:
    """A bounded number of threads and processes. Made and used on the event loop's thread; closed once.

    Attributes:
        parsers: for JSON and protobuf of megabytes, whose parsers hold the GIL.
    """

    def __init__(self, num_threads: int | None = None, num_processes: int | None = None) -> None:
        """None takes as many as the machine has cores, within bounds; threads and processes start when needed."""
        cores = os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(num_threads or max(2, min(_MAX_THREADS, cores)), "wire")
        self.parsers = ParserProcesses(num_processes or max(1, min(_MAX_THREADS, cores // 2)))
        self._num_busy = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` in a thread. If this is cancelled, that is told once the thread is done: it holds memory."""
        loop = asyncio.get_running_loop()
        with self.busy():
            return await until_done(loop.run_in_executor(self._threads, lambda: work(*args, **kwargs)))

    async def in_steps(self, work: Generator[int, None, T], held: Reservation) -> T:
        """What `work` returns, computed in threads, step by step.

        It ends early, and gives up what it has made so far, where this is cancelled or the memory budget is spent.

        Args:
            work: yields how much memory each of its pieces takes, in bytes.
            held: takes that, too.

        Raises:
            UnavailableError, PayloadTooLargeError: the memory budget is spent.
        """
        results: list[T] = []
        with self.busy():
            try:
                while not results:
                    held.grow(await self.run(_step, work, results))
            except BaseException:
                # A pool that was closed has no thread for it, and the process ends.
                with contextlib.suppress(RuntimeError):
                    self._threads.submit(work.close)
                raise
        return results[0]

    @contextlib.contextmanager
    def busy(self) -> Generator[None]:
        """Work on a request is done within, which `until_idle` waits for."""
        self._num_busy += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self._num_busy -= 1
            if not self._num_busy:
                self._is_idle.set()

    async def until_idle(self) -> None:
        """Return once no request is decoded or encoded any more."""
        await self._is_idle.wait()

    def close(self) -> None:
        """End the processes; threads end with what they do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.parsers.close()


def run_all(work: Generator[int, None, T]) -> T:
    """What `work` returns, where it is too little for steps."""
    results: list[T] = []
    while not results:
        _step(work, results)
    return results[0]


def _step(work: Generator[int, None, T], results: list[T]) -> int:
    """Go on for a MiB or so, which is told; what `work` returns at its end is put to the results."""
    num_bytes = 0
    while num_bytes < _STEP_BYTES:
        try:
            num_bytes += next(work)
        except StopIteration as end:
            results.append(end.value)
            break
    return num_bytes


async def until_done(future: asyncio.Future[T]) -> T:
    """The future's result. A cancellation is passed on only when the future is done."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not future.done():
            await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise
    finally:
        # A failed future's error knows this frame, which is not to know the future: only the garbage collection would
        # free them, and with them the request's body.
        del future
