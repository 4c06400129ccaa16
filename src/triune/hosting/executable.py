"""An executable in a worker process, which is restarted when it dies."""

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import psutil

from triune.core.datatypes import Array
from triune.core.errors import InternalError, NotRunError, TriuneError
from triune.core.runtime import Executable
from triune.core.threads import NoThreadError, start_thread
from triune.hosting.limits import Limits
from triune.hosting.process import ProcessEndedError, WorkerProcess

_log = logging.getLogger(__name__)


class HostedExecutable:
    """An `Executable` that runs the executable returned by `load` in a worker process.

    A call waits while the process restarts. After repeated failures it is not restarted for a while, and calls are
    refused at once with the reason.
    """

    is_steady = False
    """False: how long a call takes depends on another process, too, and not only on the shapes of the inputs."""

    def __init__(self, load: Callable[[], Executable], name: str, *, limits: Limits | None = None) -> None:
        """Start the process and load.

        Args:
            load: makes the executable. It is pickled, and called in the process at each start.
            name: the executable's name in messages, such as "'model.mlpackage' on 'ane'".
            limits: time limits, memory limits and limits of restarts.

        Raises:
            TriuneError: the error that `load` raised.
            InternalError: the process ended while it loaded, or could not be started.
            UnavailableError: the load exceeded its time limit.
        """
        self._load = load
        self._name = name
        self._limits = limits or Limits()
        # `_changed` is the lock for the attributes below, and announces their changes.
        self._changed = threading.Condition()
        self._process: WorkerProcess | None = None
        self._starting: WorkerProcess | None = None
        self._is_closed = False
        self._num_failures = 0
        self._problem = ""
        self._resting_until: float | None = None
        process = self._start()
        self.signature = process.signature
        self.unit = process.unit
        self.precision = process.precision
        self.report = process.report
        try:
            self._supervisor = start_thread(functools.partial(self._supervise, process), f"host of {name}")
        except NoThreadError:
            process.kill()
            process.free()
            raise

    @property
    def pid(self) -> int | None:
        """The process id; None while no process is ready."""
        with self._changed:
            return self._process.pid if self._process is not None else None

    def process_bytes(self) -> int:
        """The private memory (USS) of the process and its child processes, in bytes; 0 if no process is ready."""
        num_bytes, pid = 0, self.pid
        # Ignore that a process has ended, for which psutil raises an error: that may happen at any time.
        with contextlib.suppress(psutil.Error):
            if pid is not None:
                process = psutil.Process(pid)
                num_bytes = sum(each.memory_full_info().uss for each in (process, *process.children(recursive=True)))
        return num_bytes

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the named outputs in the process; `Executable.run` describes the arguments.

        Raises:
            TriuneError: the error that the executable raised.
            InternalError: the process died while it computed this request.
            NotRunError: the process failed repeatedly, and is not restarted for a while.
        """
        while True:
            process = self._ready_process()
            try:
                answer = process.run(inputs, outputs)
            except ProcessEndedError as end:
                if not end.has_request:
                    continue
                raise InternalError(
                    f"the worker process of {self._name} {end} while it computed this request, which may be what "
                    "ended it; it is started again: before you send the request again, see what it asks for"
                ) from None
            except TriuneError:
                self._forget_failures()
                raise
            self._forget_failures()
            return answer

    def interrupt(self) -> None:
        """Kill the process, since a run cannot be interrupted in another way. It is then restarted."""
        with self._changed:
            process = self._process
        if process is not None:
            process.interrupt()

    def close(self) -> None:
        """End the process. No `run` may be running or follow."""
        with self._changed:
            self._is_closed = True
            ready, starting = self._process, self._starting
            self._changed.notify_all()
        if starting is not None:
            starting.kill()
        if ready is not None:
            ready.close()
        self._supervisor.join()

    def _ready_process(self) -> WorkerProcess:
        """Return the running process; wait while it starts."""
        with self._changed:
            if self._resting_until is not None and time.monotonic() >= self._resting_until:
                self._resting_until = None
                self._changed.notify_all()
            self._changed.wait_for(self._is_decided)
            self._check_open()
            if self._process is not None:
                return self._process
            seconds = max(0.0, (self._resting_until or 0.0) - time.monotonic())
            raise NotRunError(
                f"the worker process of {self._name} failed {self._num_failures} times in a row and was given up: "
                f"{self._problem}; it is tried again by the first request in {seconds:.0f} s or later"
            )

    def _check_open(self) -> None:
        if self._is_closed:
            raise NotRunError(f"the worker process of {self._name} is closed")

    def _forget_failures(self) -> None:
        """Reset the number of failures, since the process has answered."""
        with self._changed:
            self._num_failures = 0

    def _is_decided(self) -> bool:
        is_ready = self._process is not None and not self._process.has_ended
        return is_ready or self._is_closed or self._resting_until is not None

    def _supervise(self, process: WorkerProcess) -> None:
        """The supervisor thread: restart the process whenever it ends, until `close`."""
        while True:
            how = process.wait()
            with self._changed:
                self._process = None
            process.free()
            successor = self._restart(f"it {how}")
            if successor is None:
                return
            process = successor

    def _restart(self, problem: str) -> WorkerProcess | None:
        """Start processes until one is ready; None if this executable was closed."""
        while self._may_start(problem):
            try:
                return self._start()
            except TriuneError as error:
                problem = str(error)
        return None

    def _may_start(self, problem: str) -> bool:
        """Count a failure, and wait until the next start is due. Returns False if this executable was closed."""
        delays = self._limits.delays_seconds
        with self._changed:
            if self._is_closed:
                return False
            self._num_failures += 1
            self._problem = problem
            if self._num_failures <= len(delays):
                delay = delays[self._num_failures - 1]
                _log.error("the worker process of %s failed: %s; it is started again", self._name, problem)
                self._changed.wait_for(lambda: self._is_closed, delay)
            else:
                _log.error("the worker process of %s is given up: %s", self._name, problem)
                self._resting_until = time.monotonic() + self._limits.rest_seconds
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._is_closed or self._resting_until is None)
            return not self._is_closed

    def _start(self) -> WorkerProcess:
        """Start a process and load the executable in it. Raises the errors of `__init__`; `close` ends this early."""
        process = WorkerProcess(self._name, self._limits)
        try:
            with self._changed:
                self._starting = process
                self._check_open()
            process.load(self._load)
            with self._changed:
                self._check_open()
                self._process = process
                self._changed.notify_all()
        except BaseException:
            process.kill()
            process.free()
            raise
        finally:
            with self._changed:
                self._starting = None
        return process
