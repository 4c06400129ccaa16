"""Who runs a batch: a thread of its own, or the caller itself."""

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
"""What a batch may hold the event loop for, again and again."""

MAX_DEBT_NS = 20_000_000
"""By how much batches may exceed their allowance together. A pause of the whole process is no reason to move."""


class Worker(Protocol):
    """Owns a runner and gives it one batch at a time."""

    @property
    def runner(self) -> Runner:
        """What runs the batches."""
        ...

    @property
    def is_inline(self) -> bool:
        """`start` runs the batch before it returns."""
        ...

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Run `batch`, then call `done` on the event loop's thread. No other batch is under way."""
        ...

    def close(self) -> None:
        """Wait for the batch under way, then close the runner. Its `done` may never be called."""
        ...


class InlineWorker:
    """The reference: runs on the caller's thread. Right for models that take less time than a hand-over."""

    is_inline = True

    def __init__(self, runner: TensorRunner) -> None:
        """`runner` is closed by `close`."""
        self.runner = runner

    def charge(self, elapsed_ns: int) -> None:
        """Told that the caller ran the executable itself for so long. Of no consequence here."""

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Run, then call `done`, then return."""
        self.runner.run(batch)
        done(batch)

    def close(self) -> None:
        """Close the runner."""
        self.runner.close()


class ThreadWorker:
    """A thread that waits for batches. The runtime releases the GIL, so the event loop goes on meanwhile."""

    is_inline = False

    def __init__(self, runner: Runner, name: str) -> None:
        """Args:
        runner: closed by `close`.
        name: the thread's name, for debuggers.

        Raises:
            NoThreadError: the system has no thread for it. The runner is the caller's then.
        """
        self.runner = runner
        self._batches: queue.SimpleQueue[tuple[Batch, BatchCallback, asyncio.AbstractEventLoop] | None] = (
            queue.SimpleQueue()
        )
        self._thread = start_thread(self._work, name)

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Hand the batch to the thread. Called on the loop's thread."""
        self._batches.put((batch, done, asyncio.get_running_loop()))

    def stop(self) -> None:
        """End the thread after the batch under way, without waiting. The runner is the caller's."""
        self._batches.put(None)

    def close(self) -> None:
        """End the thread after the batch under way, then close the runner. Blocks: call it off the loop."""
        self.stop()
        self._thread.join()
        self.runner.close()

    def _work(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Wait for a batch and run it. A call of its own: while the next is waited for, nothing holds the last."""
        if (item := self._batches.get()) is None:
            return False
        batch, done, loop = item
        self.runner.run(batch)
        try:
            loop.call_soon_threadsafe(done, batch)
        except RuntimeError:
            # The loop was closed under a batch: nobody is left to hear the answer.
            return False
        return True


class QuickWorker:
    """Runs on the caller's thread until batches take longer than was measured, from then on in a thread of its own."""

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
        """Told that the executable held the event loop for so long, by whoever ran it."""
        debt_ns = self._debt_ns + elapsed_ns - ALLOWANCE_NS
        self._debt_ns = debt_ns if debt_ns > 0 else 0
        if debt_ns > MAX_DEBT_NS:
            try:
                self._thread = ThreadWorker(self.runner, self._name)
            except NoThreadError as error:
                # The debt stays: the next batch tries again.
                _log.error("%s holds the event loop too long, and stays on it: %s", self._name, error)
                return
            self.is_inline = False
            _log.info(
                "%s runs in a thread from now on: a batch held the event loop for %.1f ms",
                self._name,
                elapsed_ns / 1e6,
            )

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Run it and call `done`, or hand the batch to the thread. Called on the loop's thread."""
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
        """End the thread if there is one, and close the runner. Blocks: call it off the loop."""
        (self._thread or self.runner).close()
