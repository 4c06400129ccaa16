"""The server's handle for a worker process: start, load, run, end."""

import contextlib
import os
import pickle
import select
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
    """The process ended during a call. The message says how, such as "was killed by SIGKILL".

    Attributes:
        has_request: whether the process had, or may have, received the request.
    """

    def __init__(self, how: str, *, has_request: bool) -> None:
        super().__init__(how)
        self.has_request = has_request


class WorkerEndedError(InternalError):
    """The process ended while it loaded an executable or ran a function.

    Attributes:
        how: how it ended, such as "was killed by SIGKILL".
    """

    def __init__(self, message: str, how: str) -> None:
        super().__init__(message)
        self.how = how


class MemoryLimitError(WorkerEndedError):
    """A process exceeded its memory limit, and was killed."""


class WorkerProcess:
    """One worker process.

    Attributes:
        has_ended: whether it is known to have ended.
        signature, unit, precision, report: the attributes of the executable, which are set when it is loaded.
    """

    signature: Signature
    unit: Unit
    precision: str
    report: str

    def __init__(self, name: str, limits: Limits) -> None:
        """Start the process; it waits for `load` or `work`.

        Raises:
            InternalError: the system cannot start a process.
        """
        self.name = name
        self.has_ended = False
        self._limits = limits
        self._run_limit: WatchedLimit | None = None
        # A call holds this lock, so that the channel is not closed meanwhile.
        self._talking = threading.Lock()
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            try:
                connection, other_end = socket.socketpair()
                ours.callback(connection.close)
                theirs.callback(other_end.close)
                life, self._life = os.pipe()
                ours.callback(os.close, self._life)
                theirs.callback(os.close, life)
                # Make a folder for temporary files of the process's libraries. It is removed however the process ends.
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
                    stdin=subprocess.DEVNULL,
                    # Send what the model prints to the server's log, if there is one, not to the server's output.
                    stdout=output,
                    stderr=output,
                    pass_fds=(other_end.fileno(), life),
                    # Give the worker process the module path of the server.
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(self._scratch.path)},
                    # Ctrl-C sends a signal to the terminal's whole process group. In a session of its own, the worker
                    # process does not get it: the server ends the worker after the requests under way.
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
        """Load the executable in the process, and wait for it.

        Args:
            load: makes the executable. It is pickled, and called in the process.

        Raises:
            TriuneError: the error that `load` raised.
            WorkerEndedError: the process ended while it loaded.
            UnavailableError: the process exceeded the time limit, and was killed.
            MemoryLimitError: the process exceeded the memory limit, and was killed.
        """
        with self._talking, self._memory_limited():
            message = self._call(load, is_executable=True)
        self.signature = to_signature(message["signature"])
        self.unit = Unit(message["unit"])
        self.precision = message["precision"]
        self.report = message["report"]
        if self._limits.run_bytes is not None:
            self._run_limit = WatchedLimit(self._process, self._limits.run_bytes)

    def work(self, work: Callable[[], object]) -> None:
        """Call a function in the process, and wait for it. More calls may follow.

        Args:
            work: the function. It is pickled.

        Raises:
            TriuneError: the error that `work` raised.
            WorkerEndedError: the process ended meanwhile.
            UnavailableError: the process exceeded the time limit, and was killed.
            MemoryLimitError: the process exceeded the memory limit, and was killed.
        """
        with self._talking, self._memory_limited():
            self._call(work, is_executable=False)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the named outputs; `Executable.run` describes the arguments.

        Raises:
            TriuneError: the error that the executable raised.
            InvalidArgumentError: the process exceeded the memory limit, and was killed.
            UnavailableError: the process exceeded the time limit, and was killed.
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
            # Copy the outputs: the process writes its next outputs to the same memory.
            return {name: np.array(views[name]) for name in outputs}

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended, as far as the system has reported it. No call may be running."""
        if self.has_ended or self._process.wait(0) is not None:
            return False
        # Look whether the channel can be read. Since no call is running, that means that the process has closed its
        # end, which happens before the system reports its exit.
        channel = select.poll()
        channel.register(self._channel.connection, select.POLLIN)
        return not channel.poll(0)

    def wait(self) -> str:
        """Wait until the process has ended.

        Returns:
            how it ended, such as "was killed by SIGKILL".
        """
        how = self._process.wait() or ""
        self.has_ended = True
        # Shut the channel down, to wake up the thread that waits for an answer: a child of the process may keep the
        # other end open.
        with contextlib.suppress(OSError):
            self._channel.connection.shutdown(socket.SHUT_RDWR)
        return how

    def close(self) -> None:
        """End the process, which gets a few seconds to free its executable. No call may be running."""
        with contextlib.suppress(OSError):
            self._channel.connection.shutdown(socket.SHUT_RDWR)
        if self._process.wait(self._limits.close_seconds) is None:
            self.kill()
        self.has_ended = True
        self.free()

    def interrupt(self) -> None:
        """Kill the process without waiting for its end."""
        self._process.kill()

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()

    def free(self) -> None:
        """Free what the server holds for a worker process that has ended. May be called again."""
        with self._talking:
            self._channel.close()
            if self._life >= 0:
                os.close(self._life)
                self._life = -1
            self._scratch.remove()

    def _memory_limited(self) -> contextlib.AbstractContextManager[None]:
        limit = self._limits.memory_bytes
        return held_to(self._process, limit) if limit is not None else contextlib.nullcontext()

    def _call(self, call: Callable[[], object], *, is_executable: bool) -> Mapping[str, Any]:
        # If the folder for the process's temporary files is gone and cannot be made, the call may need none.
        with contextlib.suppress(OSError):
            self._scratch.restore()
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
        """How the process ended, now that its end of the channel is closed."""
        how = self._process.wait(_END_SECONDS)
        if how is None:
            # Kill the process, which still runs: it has closed the channel, and so cannot be used any more.
            self.kill()
            return "closed its channel"
        return how
