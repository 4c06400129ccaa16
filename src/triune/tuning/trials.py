"""Runs trials in a separate process, which is ended if a trial crashes or exceeds its time."""

import functools
import logging
import pickle
import threading
from pathlib import Path

from triune.core.errors import TriuneError
from triune.core.scratch import HeldFolder
from triune.hosting import Limits, WorkerEndedError, WorkerProcess
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.tuning.kept import KeptExecutables
from triune.tuning.measurement import Measurement
from triune.tuning.trial import Subject, measure

_RESULT = "result"


class Trials:
    """Runs the trials of a model, one at a time. Used by one thread."""

    def __init__(self, subject: Subject) -> None:
        """Prepare trials; their process starts with the first one.

        Args:
            subject: the model that is tuned.
        """
        self._subject = subject
        self._folder = HeldFolder()
        self._process: WorkerProcess | None = None
        self._is_first = True

    def measure(self, message: ModelConfigMessage, seconds: float, limit_seconds: float) -> Measurement:
        """Measure the model with a config. If a trial fails, crashes or exceeds its time limit, the measurement says
        so.

        Args:
            message: the config.
            seconds: the time of each load.
            limit_seconds: the time limit of the whole trial, including the load of the model.

        Raises:
            InternalError: no process can be started.
        """
        process = self._process or WorkerProcess("the trials of a tuning", Limits())
        self._process = process
        path = self._folder.path / _RESULT
        has_ended = threading.Event()

        def end() -> None:
            has_ended.set()
            process.interrupt()

        timer = threading.Timer(limit_seconds, end)
        timer.daemon = True
        timer.start()
        try:
            config = message.SerializeToString()
            process.work(functools.partial(_work, self._subject, config, seconds, path, keeps=not self._is_first))
        except WorkerEndedError as error:
            self._end()
            how = f"not done within {limit_seconds:.0f} s" if has_ended.is_set() else f"its process {error.how}"
            return Measurement(failure=how)
        except TriuneError as error:
            return Measurement(failure=f"{error}")
        finally:
            timer.cancel()
            self._is_first = False
        if has_ended.is_set():
            self._end()
        found: Measurement = pickle.loads(path.read_bytes())
        return found

    def close(self) -> None:
        """End the process that runs the trials."""
        self._end()
        self._folder.remove()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.free()
            self._process = None


def _work(subject: Subject, config: bytes, seconds: float, path: Path, *, keeps: bool) -> None:
    """Run a trial in this process, and write its measurements to a file, since a process returns no values.

    The very first trial keeps no executables, so that the second one measures the time of a trial with compilation.
    """
    # Warnings need not be logged, since the trial's result contains them.
    logging.disable(logging.WARNING)
    found = measure(subject, ModelConfigMessage.FromString(config), seconds, _kept() if keeps else None)
    path.write_bytes(pickle.dumps(found))


@functools.cache
def _kept() -> KeptExecutables:
    """The stored executables of the trials in this process, which all belong to one model."""
    return KeptExecutables()
