"""Trial loads: a version that is new on this machine is first loaded in a separate process, which it may crash.

The trial loads, warms up and measures the version as the server does afterwards. If it succeeds, that is recorded under
a hash of the files, the config and the libraries, so that later starts need no trial.
"""

import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from triune.backends.attempt import Attempt
from triune.backends.machine_backend import Shared
from triune.backends.registry import typed_failures
from triune.backends.tensor.backend import TensorBackend
from triune.backends.tensor.compile import MORE_MEMORY
from triune.config.configure import Source
from triune.config.load_key import LoadKeys
from triune.config.model_config import ModelConfig
from triune.config.parameters import has_own_process
from triune.config.samples import trial_inputs
from triune.config.settings import DEFAULT_SETTINGS, ModelSettings
from triune.config.stamps import Stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import InternalError, TriuneError
from triune.core.oldest import forget_oldest
from triune.core.runtime import Executable
from triune.hosting import Limits, MemoryLimitError, WorkerEndedError, WorkerProcess, restrict_memory
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.repository.backends import CHECKPOINT_BACKENDS
from triune.runtimes.machine import Machine

_log = logging.getLogger(__name__)

_MAX_REMEMBERED = 4096
_IDLE_SECONDS = 10.0
# The time limit of a trial, in seconds. It is never reached: the lifecycle limits the time of a load, and ends the
# trial's process when it gives up the load.
_SECONDS = 1e6


class Trials:
    """Runs trial loads in processes, and records which ones succeeded. May be called from any thread."""

    def __init__(
        self,
        machine: Machine,
        folder: Path,
        settings: ModelSettings = DEFAULT_SETTINGS,
        verdicts: Path | None = None,
    ) -> None:
        """Args:
        machine: the machine to load versions on.
        folder: the folder with an empty file for each version whose trial succeeded; created when needed.
        settings: defaults for all models.
        verdicts: the folder of stored verdicts on how far units' outputs are from those of `cpu`; None stores none.
        """
        self._verdicts = verdicts
        self._machine = machine
        self._settings = settings
        self._folder = folder
        self._keys = LoadKeys(machine, settings.completion)
        self._lock = threading.Lock()
        self._idle: list[WorkerProcess] = []
        self._is_closed = False

    def require(self, source: Source, version: int, attempt: Attempt) -> None:
        """Make sure that a version can be loaded: if no earlier trial of it succeeded, run one now.

        Raises:
            TriuneError: the error of the trial load.
            InternalError: the trial's process crashed, or exceeded the memory limit of the machine's loads.
            UnavailableError: the build was cancelled.
        """
        name = self._keys.of(source, version)
        path = self._folder / name
        if path.exists():
            self._touch(path)
            return
        work = functools.partial(
            _load,
            self._machine,
            self._settings,
            self._verdicts,
            source.name,
            source.folder,
            source.message.SerializeToString(),
            source.stamp,
            source.versions,
            version,
        )
        started = time.monotonic()
        try:
            self._work(work, attempt)
        except MemoryLimitError as error:
            raise InternalError(
                f"version {version} is not loaded, since its first load, in a process of its own, {error.how}; "
                f"{MORE_MEMORY}"
            ) from None
        except WorkerEndedError as error:
            raise InternalError(
                f"version {version} is not loaded, since it would end the server: a process of its own that loaded it, "
                f"as is done with what is new, {error.how}; correct the file, or have it run in a process of its own "
                "by the parameter 'own_process' where only some requests need that"
            ) from None
        _log.info(
            "model '%s' version %d is new here: it was loaded in a process of its own first, in %.2f s",
            source.name,
            version,
            time.monotonic() - started,
        )
        self._remember(path)

    def close(self) -> None:
        """End the idle processes."""
        with self._lock:
            self._is_closed = True
        self._end_idle()

    def _work(self, work: Callable[[], None], attempt: Attempt) -> None:
        """Run work in an idle process, or in a new process if none is idle.

        Raises:
            WorkerEndedError: the work crashed a new process. If a reused process ends, an earlier load may be the
                cause, so the work is tried again in a new one.
        """
        idle = self._take_idle()
        if idle is not None:
            try:
                self._work_in(idle, work, attempt)
            except WorkerEndedError as error:
                _log.info("what is new is tried again in a fresh process, since that before %s", error.how)
            else:
                return
        limits = Limits(load_seconds=_SECONDS, memory_bytes=self._machine.load_limit())
        self._work_in(WorkerProcess("the trial of new models", limits), work, attempt)

    def _work_in(self, process: WorkerProcess, work: Callable[[], None], attempt: Attempt) -> None:
        """Run work in a process that no other load uses at the same time.

        Raises:
            UnavailableError: the build was cancelled, and the process was ended.
        """
        try:
            with attempt.holding(process):
                process.work(work)
        except WorkerEndedError:
            process.free()
            attempt.check()
            raise
        except BaseException:
            if attempt.is_given_up:
                process.kill()
                process.free()
            else:
                self._return_idle(process)
            raise
        self._return_idle(process)

    def _take_idle(self) -> WorkerProcess | None:
        """Take an idle process; None if there is none."""
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _return_idle(self, process: WorkerProcess) -> None:
        """Put a process back for the next load. Idle processes end after a while."""
        with self._lock:
            self._idle.append(process)
        timer = threading.Timer(0.0 if self._is_closed else _IDLE_SECONDS, self._end_idle)
        timer.daemon = True
        timer.start()

    def _end_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.kill()
            process.free()

    def _touch(self, path: Path) -> None:
        try:
            path.touch()
        except OSError as error:
            _log.warning("cannot write to %s: %s; what was loaded may be forgotten early", path, error)

    def _remember(self, path: Path) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.touch()
            forget_oldest(self._folder, _MAX_REMEMBERED)
        except OSError as error:
            _log.warning(
                "cannot write to %s: %s; each start loads every model twice: set TRIUNE_CACHE to a folder that can be "
                "written",
                self._folder,
                error.strerror or error,
            )


def _load(
    machine: Machine,
    settings: ModelSettings,
    verdicts: Path | None,
    name: str,
    folder: Path,
    config: bytes,
    stamp: Stamp,
    versions: tuple[int, ...],
    version: int,
) -> None:
    """Build the version, and free it. This runs in the trial's process."""
    restrict_memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    # Log no warnings here: the server logs the same messages when it loads the version.
    logging.disable(logging.WARNING)
    source = Source(name, folder, ModelConfigMessage.FromString(config), versions, stamp)
    shared = Shared(verdicts=verdicts)
    checkpoint_backend = CHECKPOINT_BACKENDS.get(source.message.backend)
    if checkpoint_backend is not None:
        of_files = checkpoint_backend(machine, MonotonicClock(), settings, is_trial=True, shared=shared)
        with typed_failures(name, version):
            of_files.build(source, version, None, Attempt()).close()
        return
    backend = TensorBackend(machine, MonotonicClock(), settings, shared=shared)
    if has_own_process(source.message):
        backend.configure(source, version)
        return
    with typed_failures(name, version):
        build = backend.build(source, version, None, Attempt())
    if not build.config.warmup:
        for executable in {each.unit: each for each in build.executables}.values():
            _run(executable, build.config, folder)
    build.close()


def _run(executable: Executable, config: ModelConfig, folder: Path) -> None:
    """Run the executable on sample inputs, one after the other, until it accepts one."""
    names = list(config.outputs)
    for inputs in trial_inputs(config, folder):
        try:
            executable.run(inputs, names)
        except TriuneError as error:
            # Only log the error: the run did not crash the process, so the trial still succeeds.
            _log.debug("a run on made-up inputs failed: %s", error)
        else:
            return
