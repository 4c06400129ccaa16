"""The memory limit of one call of a worker process.

On Linux, allocations beyond the limit fail, and the process goes on. On all systems the server also watches the
process, and kills it if it exceeds the limit.
"""

import socket
import time
from select import POLLIN, poll

import psutil

from triune.core.errors import InvalidArgumentError
from triune.core.heap import HEAP, LARGE_BYTES
from triune.hardware.memory import private_bytes
from triune.hosting.restrict import restrict_growth
from triune.hosting.watched import ABORTED, Watched

_LOOK_SECONDS = 0.1

_ROOM_BYTES = 64 << 20
"""Memory, in bytes, that the worker process may take in a call in addition to the limit, for its own code."""


def beyond(max_bytes: int, what: str = "") -> InvalidArgumentError:
    """Make the error for a request whose run needs more memory than `max_bytes`. `what` names the operator that needed
    it.
    """
    return InvalidArgumentError(
        f"the model cannot compute these inputs: {what or 'that'} takes more than the {max_bytes} bytes of memory that "
        "a run may take in all, by --run-memory-bytes; send values and shapes that need less, or raise it"
    )


class OwnLimit:
    """The memory limit of calls, as the worker process itself keeps it: from this object's creation on, larger
    allocations fail.
    """

    def __init__(self, max_bytes: int) -> None:
        """Args:
        max_bytes: the memory limit of a call.

        Raises:
            OSError: the system does not allow it.
        """
        self.max_bytes = max_bytes
        restrict_growth(max_bytes + _ROOM_BYTES)
        self._before = _rss()

    def give_back(self) -> None:
        """Return memory to the system soon, if the last call used much. Call this after each call."""
        if _rss() - self._before > LARGE_BYTES:
            HEAP.give_back_soon()


class WatchedLimit:
    """The memory limit of a call, as the server keeps it: it watches the worker process during the call."""

    def __init__(self, process: Watched, max_bytes: int) -> None:
        """Args:
        process: a process that has loaded its executable, and does not run a call now.
        max_bytes: the memory limit of a call.
        """
        self._process = process
        self._max_bytes = max_bytes
        self._before = private_bytes(process.pid)
        self._taken = 0

    def wait(self, connection: socket.socket, seconds: float | None) -> None:
        """Wait for an answer, or for the end of the process. A process that exceeds the limit is killed,
        and its `Watched.limit_met` names the limit.

        Raises:
            TimeoutError: neither happened within `seconds`.
        """
        self._taken = 0
        waiting = poll()
        waiting.register(connection, POLLIN)
        until = None if seconds is None else time.monotonic() + seconds
        while not waiting.poll(_LOOK_SECONDS * 1000):
            if until is not None and time.monotonic() > until:
                raise TimeoutError
            self._taken = max(self._taken, private_bytes(self._process.pid) - self._before)
            if self._taken > self._max_bytes + _ROOM_BYTES:
                self._process.kill("took more memory than a run may, and was ended")

    def refusal(self) -> InvalidArgumentError | None:
        """The error for the call if its process ended because the call exceeded the memory limit; None if the process
        ended for another reason.
        """
        # If the process has aborted, and the call had taken more than half of the limit, assume that an allocation
        # failed: some libraries abort the process then.
        has_aborted = self._process.wait() == ABORTED and self._taken > self._max_bytes // 2
        return beyond(self._max_bytes) if self._process.limit_met or has_aborted else None


def _rss() -> int:
    return psutil.Process().memory_info().rss
