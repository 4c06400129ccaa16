"""Move work that grows with a request off the event loop: to threads, or to processes if a library holds the GIL.

One callback may block the event loop for about a millisecond. Encoding, decoding or compressing `SMALL_BYTES` takes
less than that.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from triune.core.fair_slots import FairSlots
from triune.core.threads import pause
from triune.frontends.bodies.budget import Reservation
from triune.frontends.bodies.compression import Body
from triune.frontends.bodies.parser_processes import ParserCall, ParserProcesses

P = ParamSpec("P")
T = TypeVar("T")

SMALL_BYTES = 16 << 10
"""Up to this size, data is encoded, decoded and compressed on the event loop; larger data goes to a thread."""

NUM_FREED = 64
"""The number of pieces of a response that a thread frees before it pauses."""

QUICK_BYTES = 1 << 20
"""Work on data of up to this size takes at most a few hundredths of a second, and does not wait for larger work."""

# If its caller is cancelled, a parser process that has more bytes than this to parse is killed. Parsing fewer bytes to
# the end takes less time than starting a new process.
_KILLED_BYTES = 8 << 20
# Copying this many bytes to a parser process takes as long as parsing one byte.
_COPIED_BYTES = 16
_STEP_BYTES = 1 << 20
_MAX_THREADS = 4
_SWITCH_SECONDS = 0.5e-3


@contextlib.contextmanager
def freed_gradually(*texts: list[Any]) -> Generator[None]:
    """If the block raises, free `texts` in small steps, since freeing 1 GB at once holds the GIL for 0.1 s."""
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
    """Set Python's thread switch interval to 0.5 ms within the block; its default is 5 ms.

    The event loop waits for the GIL that long if it wakes up while another thread runs Python code.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Offload:
    """Pools of threads and of processes, of limited size. In each pool, small work can start while large work runs.

    The processes parse JSON and protobuf, since those parsers hold the GIL. Make and use it on the event loop's thread,
    and close it once.
    """

    def __init__(self, num_threads: int | None = None, num_processes: int | None = None) -> None:
        """Make the pools. Threads and processes start when they are first needed.

        Args:
            num_threads: the number of threads; None takes one for each core, from 2 to 4. One more takes work
                above QUICK_BYTES.
            num_processes: how many bodies above QUICK_BYTES are parsed at the same time, each in a process; None takes
                one for every two cores, from 1 to 4. One more process is kept for smaller bodies, so that they do not
                wait for larger ones.
        """
        cores = os.cpu_count() or 1
        num_processes = num_processes or max(1, min(_MAX_THREADS, cores // 2))
        self._threads = ThreadPoolExecutor(num_threads or max(2, min(_MAX_THREADS, cores)), "wire")
        self._long_thread = ThreadPoolExecutor(1, "wire-long")
        # Small bodies have a pool of their own. With one pool, a large body could take the last running process, and a
        # small body would wait for the start of another one.
        self._quick_parsers = ParserProcesses(num_processes + 1)
        self._large_parsers = ParserProcesses(num_processes)
        self._slots = FairSlots(num_processes + 1)
        self._large_slots = FairSlots(num_processes)
        self._num_busy = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work`, which takes a few hundredths of a second at most, in a thread. If the caller is cancelled, wait
        for the thread first, since `work` still uses the caller's memory.
        """
        return await self.run_sized(0, work, *args, **kwargs)

    async def run_sized(self, num_bytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` in a thread, as `run` does. It processes `num_bytes` without a pause. Work on more than
        QUICK_BYTES runs in one separate thread, so that small work does not wait for it.
        """
        loop = asyncio.get_running_loop()
        threads = self._threads if num_bytes <= QUICK_BYTES else self._long_thread
        with self.busy():
            return await until_done(loop.run_in_executor(threads, lambda: work(*args, **kwargs)))

    def warm(self) -> Future[None]:
        """Start the first parser, so that no request waits for its start. See `ParserProcesses.warm`."""
        return self._quick_parsers.warm()

    @contextlib.asynccontextmanager
    async def parser_slot(self, body: Body, num_parsed: int) -> AsyncGenerator[ParserProcesses]:
        """Wait until `num_parsed` bytes of a body may be parsed, and yield the processes to give to `parse`.

        Bodies above QUICK_BYTES never take all slots, so that small bodies wait for few others.
        """
        cost = num_parsed + len(body) // _COPIED_BYTES
        async with contextlib.AsyncExitStack() as slots:
            if cost > QUICK_BYTES:
                await slots.enter_async_context(self._large_slots.slot(cost))
            await slots.enter_async_context(self._slots.slot(cost))
            yield self._large_parsers if cost > QUICK_BYTES else self._quick_parsers

    async def parse(self, parsers: ParserProcesses, work: Callable[[memoryview], T], body: Body) -> T:
        """Compute `work(body)` in a process, within a `parser_slot`. Raises the errors of `ParserProcesses.call`.

        If the caller is cancelled, a process that has much to parse is killed.
        """
        call, loop = ParserCall(), asyncio.get_running_loop()

        def give_up() -> None:
            if len(body) > _KILLED_BYTES:
                parsers.abandon(call)

        with self.busy():
            future = loop.run_in_executor(parsers.threads, parsers.call, work, body, call)
            try:
                return await until_done(future, give_up)
            finally:
                del future

    async def in_steps(self, work: Generator[int, None, T], held: Reservation) -> T:
        """Run the generator `work` to its end, in threads, about 1 MiB at a time, and return its result.

        If this coroutine is cancelled or the memory budget is exceeded, `work` is closed and its pieces are freed.

        Args:
            work: yields the size of each piece that it made, in bytes.
            held: the request's reservation, which grows by these sizes.

        Raises:
            UnavailableError, PayloadTooLargeError: the memory budget is exceeded.
        """
        results: list[T] = []
        with self.busy():
            try:
                while not results:
                    held.grow(await self.run(_step, work, results))
            except BaseException:
                # Ignore RuntimeError, which a closed pool raises: the process is about to end, and need free nothing.
                with contextlib.suppress(RuntimeError):
                    self._threads.submit(work.close)
                raise
        return results[0]

    @contextlib.contextmanager
    def busy(self) -> Generator[None]:
        """Mark the block as work on a request, for which `until_idle` waits."""
        self._num_busy += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self._num_busy -= 1
            if not self._num_busy:
                self._is_idle.set()

    async def until_idle(self) -> None:
        """Wait until no request is being decoded or encoded."""
        await self._is_idle.wait()

    def close(self) -> None:
        """Kill the processes. Threads finish their current step and end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._long_thread.shutdown(wait=False, cancel_futures=True)
        self._quick_parsers.close()
        self._large_parsers.close()


def run_all(work: Generator[int, None, T]) -> T:
    """Run the generator `work` to its end in the caller's thread, and return its result."""
    results: list[T] = []
    while not results:
        _step(work, results)
    return results[0]


def _step(work: Generator[int, None, T], results: list[T]) -> int:
    """Run `work` for about 1 MiB of pieces and return their size. If `work` ends, append its result to `results`."""
    num_bytes = 0
    while num_bytes < _STEP_BYTES:
        try:
            num_bytes += next(work)
        except StopIteration as end:
            results.append(end.value)
            break
    return num_bytes


async def until_done(future: asyncio.Future[T], give_up: Callable[[], object] = lambda: None) -> T:
    """Wait for a future, and return its result. If the caller is cancelled, call `give_up`, and wait for the future."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        give_up()
        if not future.done():
            await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise
    finally:
        # Drop the reference to the future: the future refers to its error, the error's traceback to this frame. If the
        # frame referred to the future, this cycle would keep the request's body in memory until garbage collection.
        del future
