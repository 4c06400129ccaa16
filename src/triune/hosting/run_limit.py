"""The memory that one call of a worker process may take.

On Linux the system refuses the process what is beyond it, and the process lives on; everywhere it is watched from
outside, and ended.
"""

import contextlib
import socket
import time
from select import POLLIN, poll

import psutil

from triune.core.errors import InvalidArgumentError
from triune.core.heap import HEAP, LARGE_BYTES
from triune.hosting.restrict import restrict_growth
from triune.hosting.watched import ABORTED, Watched

_LOOK_SECONDS = 0.1

_ROOM_BYTES = 64 << 20
"""For what runs the model, beside the model."""


def beyond(max_bytes: int, what: str = "") -> InvalidArgumentError:
    """What is told to who asks for more, by an operator that is named so."""
    return InvalidArgumentError(
        f"the model cannot compute these inputs: {what or 'that'} takes more than the {max_bytes} bytes of memory that "
        "a run may take in all, by --run-memory-bytes; send values and shapes that need less, or raise it"
    )


class OwnLimit:
    """In the worker process: holds it to what a call may take from now on."""

    def __init__(self, max_bytes: int) -> None:
        """Args:
        max_bytes: what a call may take.

        Raises:
            OSError: the system does not allow it.
        """
        self.max_bytes = max_bytes
        restrict_growth(max_bytes + _ROOM_BYTES)
        self._before = _rss()

    def give_back(self) -> None:
        """After a call: what it took goes back to the system soon, where that was much."""
        if _rss() - self._before > LARGE_BYTES:
            HEAP.give_back_soon()


class WatchedLimit:
    """In the server: watches a worker process while it has a call."""

    def __init__(self, process: Watched, max_bytes: int) -> None:
        """Args:
        process: has loaded what it runs, and has no call.
        max_bytes: what a call may take.
        """
        self._process = process
        self._max_bytes = max_bytes
        self._before = _private_bytes(process.pid)
        self._taken = 0

    def wait(self, connection: socket.socket, seconds: float | None) -> None:
        """Wait until an answer comes, or the process's end, which this may bring about: its `limit_met` says so.

        Raises:
            TimeoutError: neither came within so many seconds.
        """
        self._taken = 0
        waiting = poll()
        waiting.register(connection, POLLIN)
        until = None if seconds is None else time.monotonic() + seconds
        while not waiting.poll(_LOOK_SECONDS * 1000):
            if until is not None and time.monotonic() > until:
                raise TimeoutError
            self._taken = max(self._taken, _private_bytes(self._process.pid) - self._before)
            if self._taken > self._max_bytes + _ROOM_BYTES:
                self._process.kill("took more memory than a run may, and was ended")

    def refusal(self) -> InvalidArgumentError | None:
        """The error of the call, where the process has ended for this limit; None where it has for something else."""
        # A library that is refused memory where it does not expect it aborts.
        has_aborted = self._process.wait() == ABORTED and self._taken > self._max_bytes // 2
        return beyond(self._max_bytes) if self._process.limit_met or has_aborted else None


def _rss() -> int:
    return psutil.Process().memory_info().rss


def _private_bytes(pid: int) -> int:
    """What a process has that it does not share; 0 where it has ended."""
    with contextlib.suppress(psutil.Error):
        memory = psutil.Process(pid).memory_info()
        # Not every system tells what is shared.
        return memory.rss - getattr(memory, "shared", 0)
    return 0
