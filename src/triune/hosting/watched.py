"""Watch a process: report how it ended, and kill it if a signal has stopped it for too long."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import Final

from triune.core.scratch import remove_held
from triune.core.threads import NoThreadError, start_thread

_LOOK_SECONDS = 0.05


class Watched:
    """A process for whose end a thread waits. No other code may wait for the process.

    A process that a signal has stopped neither answers nor ends, so that callers would wait forever. The system reports
    such stops. A heartbeat is not needed for that, and a library that holds the GIL would delay it.

    Attributes:
        limit_met: the limit for which it was killed, such as "took more than 1000 bytes of memory, and was ended".
    """

    def __init__(self, process: subprocess.Popen[bytes], name: str, stopped_seconds: float) -> None:
        """Args:
        process: a process that was just started.
        name: what the process is for; it becomes part of the name of the thread that waits for the process.
        stopped_seconds: the process is killed if a signal (SIGSTOP, for example) has suspended it for longer than this.

        Raises:
            NoThreadError: the system cannot start the thread; the process was killed.
        """
        self.pid = process.pid
        self._process = process
        self._stopped_seconds = stopped_seconds
        self._lock = threading.Lock()
        self.limit_met = ""
        self._how = ""
        self._why = ""
        self._ended = threading.Event()
        try:
            start_thread(self._watch, f"watch of {name}")
        except NoThreadError:
            process.kill()
            process.wait()
            raise
        with _living_lock:
            _living.add(self)

    def wait(self, seconds: float | None = None) -> str | None:
        """Wait until the process has ended.

        Returns:
            how it ended, such as "was killed by SIGKILL"; None after `seconds`.
        """
        return self._how if self._ended.wait(seconds) else None

    def kill(self, limit_met: str = "") -> None:
        """Kill the process; `limit_met` names the limit that it has exceeded, if that is why. Does not wait, and
        does nothing if the process has ended.
        """
        with self._lock:
            if not self._how:
                self.limit_met = self.limit_met or limit_met
                self._why = self._why or limit_met
                # Ignore that the process has ended, which the thread that waits for it may not have recorded yet.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)

    def _watch(self) -> None:
        while True:
            _, status = os.waitpid(self.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            ended = self._wait_until_continued(_name(os.WSTOPSIG(status)))
            if ended is not None:
                status = ended
                break
        with self._lock:
            code = os.waitstatus_to_exitcode(status)
            self._process.returncode = code
            self._how = self._why or _describe(code)
        with _living_lock:
            _living.discard(self)
        self._ended.set()

    def _wait_until_continued(self, by: str) -> int | None:
        """Wait until a process that the signal `by` stopped goes on, or kill it.

        Returns:
            its exit status, if it ended.
        """
        until = time.monotonic() + self._stopped_seconds
        while time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
            pid, status = os.waitpid(self.pid, os.WUNTRACED | os.WCONTINUED | os.WNOHANG)
            if pid and os.WIFCONTINUED(status):
                return None
            if pid and not os.WIFSTOPPED(status):
                return status
        self._why = f"was stopped by {by}, did not go on within {self._stopped_seconds:g} s, and was ended"
        self.kill()
        return None


_living: set[Watched] = set()
_living_lock = threading.Lock()


def kill_all() -> None:
    """Kill all watched processes, without waiting. Call this when this process is about to exit.

    A watched process that a signal has stopped could not notice the end of this process.
    """
    with _living_lock:
        living = list(_living)
    for each in living:
        each.kill()


def leave_nothing() -> None:
    """Kill all watched processes, and remove this process's temporary folders (`core.scratch`). Call this when this
    process is about to exit while threads may still run: they will not get to remove their own folders.
    """
    kill_all()
    remove_held()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _describe(code: int) -> str:
    return f"ended with exit code {code}" if code >= 0 else f"was killed by {_name(-code)}"


ABORTED: Final = _describe(-signal.SIGABRT)
"""The text that says how a process ended, if it ended by abort()."""
