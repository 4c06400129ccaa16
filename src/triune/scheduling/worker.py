"""Workers run batches, on a thread of their own or on the event loop's thread."""

import asyncio
import contextlib
import logging
import queue
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

from triune.core.threads import NoThreadError, start_thread
from triune.scheduling.batch import Batch
from triune.scheduling.runner import Runner, TensorRunner

BatchCallback: TypeAlias = Callable[[Batch], None]

_log = logging.getLogger(__name__)

ALLOWANCE_NS = 1_000_000
"""The time, in ns, for which each batch may block the event loop."""

MAX_DEBT_NS = 20_000_000
"""The total time, in ns, by which batches may exceed their allowance before the model leaves the event loop's
thread.
"""

NUM_REPEATS = 2
"""How often a batch is repeated at most to learn whether the model is slow, or whether the process was paused."""


class Worker(Protocol):
    """Owns a runner and runs one batch at a time."""

    @property
    def runner(self) -> Runner:
        """The runner that runs this worker's batches."""
        ...

    @property
    def is_inline(self) -> bool:
        """Whether `start` runs the batch before it returns."""
        ...

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Run `batch`, then call `done` on the event loop's thread. No other batch may be running."""
        ...

    def close(self) -> None:
        """Wait for the running batch, then close the runner. It is not certain that `done` is called for that batch."""
        ...


class InlineWorker:
    """Runs batches on the caller's thread, for models that are faster than a switch between threads.

    This is the reference implementation of `Worker`.
    """

    is_inline = True

    def __init__(self, runner: TensorRunner) -> None:
        """`runner` runs the batches. `close` closes it."""
        self.runner = runner

    def charge(self, elapsed_ns: int) -> bool:
        """Return False: this worker never moves to another thread. See `QuickWorker.charge`."""
        return False

    def leave(self, elapsed_ns: int, repeat: Callable[[], object]) -> None:
        """Do nothing: this worker never moves to another thread. See `QuickWorker.leave`."""

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Run the batch, and call `done`, before returning."""
        self.runner.run(batch)
        done(batch)

    def close(self) -> None:
        """Close the runner."""
        self.runner.close()


class ThreadWorker:
    """Runs batches on its own thread. The runtime releases the GIL, so that the event loop goes on meanwhile."""

    is_inline = False

    def __init__(self, runner: Runner, name: str) -> None:
        """Args:
        runner: runs the batches. `close` closes it.
        name: the thread's name, for debuggers.

        Raises:
            NoThreadError: the system cannot start a thread. The caller still owns the runner then.
        """
        self.runner = runner
        self._calls: queue.SimpleQueue[tuple[Callable[[], None], Callable[[], None], asyncio.AbstractEventLoop] | None]
        self._calls = queue.SimpleQueue()
        self._thread = start_thread(self._work, name)

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Pass the batch to the thread. Call this on the event loop's thread."""
        self.call(partial(self.runner.run, batch), partial(done, batch))

    def call(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        """Call `work` on the thread, after the work that was passed to it before, then call `done` on the event loop's
        thread.

        `work` must not raise. Call this on the event loop's thread.
        """
        self._calls.put((work, done, asyncio.get_running_loop()))

    def stop(self) -> None:
        """End the thread after the running batch, without waiting. Then the caller owns the runner."""
        self._calls.put(None)

    def close(self) -> None:
        """End the thread after the running batch, then close the runner. It blocks: do not call it on the event
        loop.
        """
        self.stop()
        self._thread.join()
        self.runner.close()

    def _work(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Wait for the next call and make it.

        This is a function of its own, so that no local variable keeps the last batch in memory while the thread waits.
        """
        if (item := self._calls.get()) is None:
            return False
        work, done, loop = item
        work()
        try:
            loop.call_soon_threadsafe(done)
        except RuntimeError:
            # The event loop was closed while the batch ran, so nobody waits for the answer: end the thread.
            return False
        return True


class QuickWorker:
    """Runs batches on the event loop's thread as long as they are fast, else on a thread of its own.

    A batch can be late for two reasons: the model is slow on these inputs, or the whole process was paused, by a busy
    or virtual machine. So the worker's thread repeats the late batch. If the repetition is fast, batches return to the
    event loop's thread; if it is slow too, they never return.
    """

    def __init__(self, runner: TensorRunner, name: str) -> None:
        """Args:
        runner: runs the batches. `close` closes it.
        name: the name of the thread, and of the worker in the log.
        """
        self.runner = runner
        self.is_inline = True
        self._name = name
        self._debt_ns = 0
        self._thread: ThreadWorker | None = None
        self._num_in_thread = 0
        self._may_return = False

    def charge(self, elapsed_ns: int) -> bool:
        """Record that a batch blocked the event loop for `elapsed_ns`.

        Returns:
            whether batches have together exceeded ALLOWANCE_NS (1 ms each) by more than MAX_DEBT_NS (20 ms), so that
            `leave` must be called.
        """
        debt_ns = self._debt_ns + elapsed_ns - ALLOWANCE_NS
        self._debt_ns = debt_ns if debt_ns > 0 else 0
        return debt_ns > MAX_DEBT_NS

    def leave(self, elapsed_ns: int, repeat: Callable[[], object]) -> None:
        """Run batches on the worker's thread from now on. If `repeat` is slow there too, they stay there forever.

        Args:
            elapsed_ns: the time for which the last batch blocked the event loop, for the log.
            repeat: runs the executable once more on the inputs of the last batch.
        """
        if self._thread is None:
            try:
                self._thread = ThreadWorker(self.runner, self._name)
            except NoThreadError as error:
                # The excess time stays recorded, so that the next late batch tries again to start the thread.
                _log.error("%s holds the event loop too long, and stays on it: %s", self._name, error)
                return
        self.is_inline = False
        self._may_return = False
        durations_ns: list[int] = []
        self._thread.call(partial(self._time, repeat, durations_ns), partial(self._judge, elapsed_ns, durations_ns))

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Run the batch and call `done`, or pass the batch to the thread. Call this on the event loop's thread."""
        if not self.is_inline and self._thread is not None:
            self._num_in_thread += 1
            self._thread.start(batch, partial(self._complete, done))
            return
        self.runner.run(batch)
        elapsed_ns = batch.ended_ns - batch.started_ns
        if self.charge(elapsed_ns):
            self.leave(elapsed_ns, partial(self.runner.repeat, batch))
        done(batch)

    def stop(self) -> None:
        """End the thread, if there is one, without waiting. Then the caller owns the runner."""
        if self._thread is not None:
            self._thread.stop()

    def close(self) -> None:
        """End the thread, if there is one, and close the runner. It blocks: do not call it on the event loop."""
        (self._thread or self.runner).close()

    def _complete(self, done: BatchCallback, batch: Batch) -> None:
        self._num_in_thread -= 1
        self._return()
        done(batch)

    def _time(self, repeat: Callable[[], object], durations_ns: list[int]) -> None:
        """Repeat a batch on the worker's thread, NUM_REPEATS times or until it is fast, and append the durations."""
        for _ in range(NUM_REPEATS):
            began_ns = self.runner.clock.now_ns()
            # The clients get the results or the error of the batch's first run. This run only measures the time, so its
            # error is ignored.
            with contextlib.suppress(Exception):
                repeat()
            durations_ns.append(self.runner.clock.now_ns() - began_ns)
            if durations_ns[-1] <= ALLOWANCE_NS:
                return

    def _judge(self, elapsed_ns: int, durations_ns: Sequence[int]) -> None:
        """Decide from the durations of the repetitions whether to return to the event loop's thread. Call this on that
        thread.
        """
        self._may_return = min(durations_ns) <= ALLOWANCE_NS
        if self._may_return:
            self._return()
            return
        _log.info(
            "%s runs in a thread from now on: a batch held the event loop for %.1f ms, and took %.1f ms when repeated",
            self._name,
            elapsed_ns / 1e6,
            min(durations_ns) / 1e6,
        )

    def _return(self) -> None:
        """Run batches on the event loop's thread again, if `_judge` allowed it and the other thread runs none: an
        executable runs one batch at a time.
        """
        if self._may_return and not self._num_in_thread:
            self.is_inline = True
            self._may_return = False
            self._debt_ns = 0
