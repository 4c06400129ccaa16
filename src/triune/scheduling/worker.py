"""Workers run batches: on their own thread, or on the caller's."""

import asyncio
import logging
import queue
from collections.abc import Callable
from typing import Protocol, TypeAlias

from triune.core.threads import NoThreadError, start_thread
from triune.scheduling.batch import Batch
from triune.scheduling.runner import Runner, TensorRunner

BatchCallback: TypeAlias = Callable[[Batch], None]

_log = logging.getLogger(__name__)

ALLOWANCE_NS = 1_000_000
"""The time for which each batch may block the event loop."""

MAX_DEBT_NS = 20_000_000
"""The total time by which batches may exceed their allowance. A single pause of the process must not move the model
to a thread."""


class Worker(Protocol):
    """Owns a runner and runs one batch at a time."""

    @property
    def runner(self) -> Runner:
        """The runner of the batches."""
        ...

    @property
    def is_inline(self) -> bool:
        """`start` runs the batch before it returns."""
        ...

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Run `batch`, then call `done` on the event loop's thread. No other batch may be running."""
        ...

    def close(self) -> None:
        """Wait for the running batch, then close the runner. The batch's `done` may never be called."""
        ...


class InlineWorker:
    """The reference implementation: runs on the caller's thread. For models faster than a switch of threads."""

    is_inline = True

    def __init__(self, runner: TensorRunner) -> None:
        """`runner` is closed by `close`."""
        self.runner = runner

    def charge(self, elapsed_ns: int) -> None:
        """Record that the caller ran the executable itself for `elapsed_ns`. This worker ignores it."""

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Run, then call `done`, then return."""
        self.runner.run(batch)
        done(batch)

    def close(self) -> None:
        """Close the runner."""
        self.runner.close()


class ThreadWorker:
    """Runs batches on its own thread. The runtime releases the GIL, so the event loop runs meanwhile."""

    is_inline = False

    def __init__(self, runner: Runner, name: str) -> None:
        """Args:
        runner: closed by `close`.
        name: the thread's name, for debuggers.

        Raises:
            NoThreadError: the system cannot start a thread. The caller still owns the runner then.
        """
        self.runner = runner
        self._batches: queue.SimpleQueue[tuple[Batch, BatchCallback, asyncio.AbstractEventLoop] | None] = (
            queue.SimpleQueue()
        )
        self._thread = start_thread(self._work, name)

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Pass the batch to the thread. Called on the loop's thread."""
        self._batches.put((batch, done, asyncio.get_running_loop()))

    def stop(self) -> None:
        """End the thread after the running batch, without waiting. The caller owns the runner from now on."""
        self._batches.put(None)

    def close(self) -> None:
        """End the thread after the running batch, then close the runner. Blocks: do not call it on the event loop."""
        self.stop()
        self._thread.join()
        self.runner.close()

    def _work(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Wait for a batch and run it. A function of its own, so that no local variable keeps the last batch alive."""
        if (item := self._batches.get()) is None:
            return False
        batch, done, loop = item
        self.runner.run(batch)
        try:
            loop.call_soon_threadsafe(done, batch)
        except RuntimeError:
            # The loop was closed while the batch ran: nobody waits for the answer.
            return False
        return True


class QuickWorker:
    """Runs on the caller's thread until batches take longer than measured at load, then on its own thread."""

    def __init__(self, runner: TensorRunner, name: str) -> None:
        """Args:
        runner: closed by `close`.
        name: names the thread, and the worker in the log.
        """
        self.runner = runner
        self.is_inline = True
        self._name = name
        self._debt_ns = 0
        self._thread: ThreadWorker | None = None

    def charge(self, elapsed_ns: int) -> None:
        """Record that the executable blocked the event loop for `elapsed_ns`."""
        debt_ns = self._debt_ns + elapsed_ns - ALLOWANCE_NS
        self._debt_ns = debt_ns if debt_ns > 0 else 0
        if debt_ns > MAX_DEBT_NS:
            try:
                self._thread = ThreadWorker(self.runner, self._name)
            except NoThreadError as error:
                # The debt stays, so the next batch tries again to start the thread.
                _log.error("%s holds the event loop too long, and stays on it: %s", self._name, error)
                return
            self.is_inline = False
            _log.info(
                "%s runs in a thread from now on: a batch held the event loop for %.1f ms",
                self._name,
                elapsed_ns / 1e6,
            )

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Run the batch and call `done`, or pass it to the thread. Called on the loop's thread."""
        if self._thread is not None:
            self._thread.start(batch, done)
            return
        self.runner.run(batch)
        self.charge(batch.ended_ns - batch.started_ns)
        done(batch)

    def stop(self) -> None:
        """As `ThreadWorker.stop`."""
        if self._thread is not None:
            self._thread.stop()

    def close(self) -> None:
        """End the thread if there is one, and close the runner. Blocks: do not call it on the event loop."""
        (self._thread or self.runner).close()
