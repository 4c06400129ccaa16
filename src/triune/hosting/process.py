"""A worker process as the server sees it: started, loaded, run, ended."""

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InternalError, UnavailableError
from triune.core.runtime import Executable
from triune.core.scratch import HeldFolder
from triune.core.tensors import Signature
from triune.core.threads import NoThreadError
from triune.core.units import Unit
from triune.hosting.channel import Channel
from triune.hosting.limits import Limits
from triune.hosting.memory_limit import held_to
from triune.hosting.messages import to_error, to_signature
from triune.hosting.output import has_log, log_lines
from triune.hosting.run_limit import WatchedLimit
from triune.hosting.watched import Watched

_STANDARD_ERROR = 2
_END_SECONDS = 10.0


class ProcessEndedError(Exception):
    """The process ended under a call. The message says how: "was killed by SIGKILL".

    Attributes:
        has_request: it had the request, or may have had it.
    """

    def __init__(self, how: str, *, has_request: bool) -> None:
        super().__init__(how)
        self.has_request = has_request


class WorkerEndedError(InternalError):
    """The process ended while it loaded, or before its work was done.

    Attributes:
        how: "was killed by SIGKILL".
    """

    def __init__(self, message: str, how: str) -> None:
        super().__init__(message)
        self.how = how


class MemoryLimitError(WorkerEndedError):
    """A process took more memory than it may, and was ended."""


class WorkerProcess:
    """One process, from its start to its end.

    Attributes:
        has_ended: it is known to be gone. It may be gone without that being known.
        signature, unit, precision: the executable's, once it is loaded.
    """

    signature: Signature
    unit: Unit
    precision: str

    def __init__(self, name: str, limits: Limits) -> None:
        """Start the process; it waits for `load` or `work`.

        Raises:
            InternalError: the system starts no process.
        """
        self.name = name
        self.has_ended = False
        self._limits = limits
        self._run_limit: WatchedLimit | None = None
        # Held by whoever talks: what he talks through is not to be closed under him.
        self._talking = threading.Lock()
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            try:
                connection, other_end = socket.socketpair()
                ours.callback(connection.close)
                theirs.callback(other_end.close)
                life, self._life = os.pipe()
                ours.callback(os.close, self._life)
                theirs.callback(os.close, life)
                # What its libraries leave among the temporary files goes with it, however it ends.
                self._scratch = HeldFolder()
                ours.callback(self._scratch.remove)
                output = _STANDARD_ERROR
                if has_log():
                    reading, output = os.pipe()
                    theirs.callback(os.close, output)
                    reader = ours.enter_context(contextlib.ExitStack())
                    reader.callback(os.close, reading)
                    log_lines(reading, name)
                    reader.pop_all()
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "triune.hosting.child", f"{other_end.fileno()}", f"{life}", name],
                    # What the model prints must not get into the server's own output.
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(other_end.fileno(), life),
                    # Classes are found where this process finds them.
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(self._scratch.path)},
                    # Ctrl-C in a terminal goes to the server's group: the server drains, and then ends this process.
                    start_new_session=True,
                )
                self._process = Watched(process, name, limits.stopped_seconds)
            except (OSError, MemoryError, NoThreadError) as error:
                raise InternalError(f"no worker process could be started for {name}: {error}") from error
            ours.pop_all()
        self._channel = Channel(connection)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def load(self, load: Callable[[], Executable]) -> None:
        """Have the executable loaded, and wait for it.

        Args:
            load: to be pickled, and called in the process.

        Raises:
            TriuneError: what `load` raised there.
            WorkerEndedError: the process ended while it loaded.
            UnavailableError: it took too long, and was ended.
        """
        with self._talking:
            message = self._call(load, is_executable=True)
        self.signature = to_signature(message["signature"])
        self.unit = Unit(message["unit"])
        self.precision = message["precision"]
        if self._limits.run_bytes is not None:
            self._run_limit = WatchedLimit(self._process, self._limits.run_bytes)

    def work(self, work: Callable[[], object]) -> None:
        """Have something done, and wait for it. More may follow.

        Args:
            work: to be pickled, and called in the process.

        Raises:
            As `load`.
            MemoryLimitError: it took more memory than it may, and was ended.
        """
        limit = self._limits.memory_bytes
        with self._talking, held_to(self._process, limit) if limit is not None else contextlib.nullcontext():
            self._call(work, is_executable=False)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """As `Executable.run`.

        Raises:
            TriuneError: what the executable raised.
            InvalidArgumentError: it took more memory than it may, and was ended.
            UnavailableError: it took too long, and was ended.
            ProcessEndedError: the process ended.
        """
        has_request = False
        with self._talking:
            try:
                self._channel.connection.settimeout(self._limits.run_seconds)
                self._channel.send({"outputs": list(outputs)}, inputs)
                has_request = True
                if self._run_limit is not None:
                    self._run_limit.wait(self._channel.connection, self._limits.run_seconds)
                message, views = self._channel.receive()
            except TimeoutError:
                self.has_ended = True
                self.kill()
                raise UnavailableError(
                    f"{self.name} did not answer within {self._limits.run_seconds:g} s; its process was ended, and is "
                    "started again"
                ) from None
            except (EOFError, OSError):
                self.has_ended = True
                how = self._how()
                if self._run_limit is not None and (refusal := self._run_limit.refusal()) is not None:
                    raise refusal from None
                raise ProcessEndedError(how, has_request=has_request) from None
            if "error" in message:
                raise to_error(message["error"])
            # The process writes its next outputs to the same memory.
            return {name: np.array(views[name]) for name in outputs}

    def wait(self) -> str:
        """Wait until the process has ended, and say how: "was killed by SIGKILL"."""
        how = self._process.wait() or ""
        self.has_ended = True
        # A process that it started may hold its end of the channel: whoever waits for an answer is to know now.
        with contextlib.suppress(OSError):
            self._channel.connection.shutdown(socket.SHUT_RDWR)
        return how

    def close(self) -> None:
        """End the process: it frees its executable, and has a few seconds for that. No call is under way."""
        with contextlib.suppress(OSError):
            self._channel.connection.shutdown(socket.SHUT_RDWR)
        if self._process.wait(self._limits.close_seconds) is None:
            self.kill()
        self.has_ended = True
        self.free()

    def interrupt(self) -> None:
        """Have the process ended. Does not wait for its end."""
        self._process.kill()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def free(self) -> None:
        """Give back what the ended process leaves in this one. May be called again."""
        with self._talking:
            self._channel.close()
            if self._life >= 0:
                os.close(self._life)
                self._life = -1
            self._scratch.remove()

    def _call(self, call: Callable[[], object], *, is_executable: bool) -> Mapping[str, Any]:
        connection = self._channel.connection
        pickled = np.frombuffer(pickle.dumps(call), np.uint8)
        try:
            connection.settimeout(self._limits.load_seconds)
            first = {
                "is_executable": is_executable,
                "cpu_seconds": self._limits.cpu_seconds,
                "run_bytes": self._limits.run_bytes,
            }
            self._channel.send(first, {"call": pickled})
            message, _ = self._channel.receive()
            connection.settimeout(None)
        except TimeoutError:
            self.kill()
            raise UnavailableError(
                f"{self.name} was not {'loaded' if is_executable else 'done'} within {self._limits.load_seconds:g} s; "
                "its process was ended"
            ) from None
        except (EOFError, OSError):
            when, how = "while it loaded" if is_executable else "before that was done", self._how()
            kind = MemoryLimitError if self._process.limit_met else WorkerEndedError
            raise kind(f"the worker process of {self.name} {how} {when}", how) from None
        if "error" in message:
            raise to_error(message["error"])
        return message

    def _how(self) -> str:
        """How the process ended, whose end of the channel is closed."""
        how = self._process.wait(_END_SECONDS)
        if how is None:
            # It closed the channel and lives on: nobody can talk to it any more.
            self.kill()
            return "closed its channel"
        return how
