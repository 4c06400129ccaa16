"""An executable whose process is started again when it dies."""

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from triune.core.datatypes import Array
from triune.core.errors import InternalError, TriuneError, UnavailableError
from triune.core.runtime import Executable
from triune.core.threads import NoThreadError, start_thread
from triune.hosting.limits import Limits
from triune.hosting.process import ProcessEndedError, WorkerProcess

_log = logging.getLogger(__name__)


class HostedExecutable:
    """Runs in a process of its own what `load` gives there. See `core.runtime.Executable`.

    A call waits while the process is started again. Processes that fail again and again are given up for a while,
    and calls are refused at once with the reason.
    """

    is_steady = False
    """A call may have to wait for another process."""

    def __init__(self, load: Callable[[], Executable], name: str, *, limits: Limits | None = None) -> None:
        """Start the process and load.

        Args:
            load: pickled, and called in the process; again, whenever that has to be started again.
            name: what messages call it: "'model.mlpackage' on 'ane'".
            limits: how long it may take and how often it may fail.

        Raises:
            TriuneError: what `load` raised there.
            InternalError: the process ended while it loaded, or could not be started.
            UnavailableError: it took too long.
        """
        self._load = load
        self._name = name
        self._limits = limits or Limits()
        # What follows is guarded by this condition, and told of by it.
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
        try:
            self._supervisor = start_thread(functools.partial(self._supervise, process), f"host of {name}")
        except NoThreadError:
            process.kill()
            process.free()
            raise

    @property
    def pid(self) -> int | None:
        """The id of the process; None while there is none that is ready."""
        with self._changed:
            return self._process.pid if self._process is not None else None

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the named outputs in the process, as `Executable.run` says.

        Raises:
            TriuneError: what the executable raised there.
            InternalError: the process died while it computed this request.
            UnavailableError: the process failed again and again, and is given up for a while.
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
        """End the process, which is started again: nothing else ends what it computes."""
        with self._changed:
            process = self._process
        if process is not None:
            process.interrupt()

    def close(self) -> None:
        """End the process. No `run` is under way and none follows."""
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
        """The process that runs, waited for while it is started."""
        with self._changed:
            if self._resting_until is not None and time.monotonic() >= self._resting_until:
                self._resting_until = None
                self._changed.notify_all()
            self._changed.wait_for(self._is_decided)
            self._check_open()
            if self._process is not None:
                return self._process
            seconds = max(0.0, (self._resting_until or 0.0) - time.monotonic())
            raise UnavailableError(
                f"the worker process of {self._name} failed {self._num_failures} times in a row and was given up: "
                f"{self._problem}; it is tried again by the first request in {seconds:.0f} s or later"
            )

    def _check_open(self) -> None:
        if self._is_closed:
            raise UnavailableError(f"the worker process of {self._name} is closed")

    def _forget_failures(self) -> None:
        """An answer was given, so the process does what it is for."""
        with self._changed:
            self._num_failures = 0

    def _is_decided(self) -> bool:
        is_ready = self._process is not None and not self._process.has_ended
        return is_ready or self._is_closed or self._resting_until is not None

    def _supervise(self, process: WorkerProcess) -> None:
        """The supervisor's thread: when the process has ended, start another one, until `close`."""
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
        """Another process, ready; None once this executable is closed."""
        while self._may_start(problem):
            try:
                return self._start()
            except TriuneError as error:
                problem = str(error)
        return None

    def _may_start(self, problem: str) -> bool:
        """Count a failure, and wait as long as it takes until the next start. False once this executable is closed."""
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
        """A process with the executable loaded. Raises as the constructor; `close` ends it early."""
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
