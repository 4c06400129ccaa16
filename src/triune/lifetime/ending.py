"""Handles SIGINT, SIGTERM and SIGHUP in a thread, and enforces a deadline for the shutdown."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Final

from triune.core.threads import NoThreadError, start_thread

EXIT_TIMED_OUT: Final = 1
"""The exit code of a server that did not end in time."""

EXIT_ABORTED: Final = 130
"""The exit code of a server that was interrupted twice: the shell's code for a program that SIGINT ended."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CLOSE_SECONDS = 5.0
_SAY_SECONDS = 1.0

_log = logging.getLogger(__name__)


def _ignore(number: int, frame: FrameType | None) -> None:
    """A signal handler for Python that does nothing: the thread that reads the wake-up pipe handles the signal."""


class Ending:
    """Signal handling: the first signal starts a shutdown, the second ends the process at once.

    Closing a terminal may send SIGHUP several times, so that SIGHUP never counts as a second signal. If SIGHUP is
    ignored at the start, as by nohup, it stays ignored.

    A signal is handled even while the event loop blocks the main thread. Python would run a signal handler only after
    the call that blocks. But it writes the number of the signal to a wake-up pipe at once (`signal.set_wakeup_fd`), and
    a thread of this class reads that pipe.

    Attributes:
        stop: the event that the first signal sets.
    """

    def __init__(
        self,
        timeout_seconds: float,
        last_act: Callable[[], object],
        *,
        close_seconds: float = _CLOSE_SECONDS,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """Create, enter and leave this on the main thread, with its event loop running.

        Args:
            timeout_seconds: the time from the first signal until `drained` is called; after it, the process exits with
                a failure.
            last_act: called before the process exits with a failure, even if other threads are blocked.
            close_seconds: the time until the process has exited, from the first signal or, if later, `drained`.
            leave: exits the process.
        """
        self.stop = asyncio.Event()
        self._timeout_seconds = timeout_seconds
        self._last_act = last_act
        self._close_seconds = close_seconds
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._drained = threading.Event()
        # Set by the first signal.
        self._stopping = threading.Event()
        # Set when the process is about to exit with a failure, whose reason is `_why`, and when that has been logged.
        self._speaking = threading.Event()
        self._spoken = threading.Event()
        self._why = ""
        # Whether this was left without a signal, so that its threads end.
        self._is_over = False

    def drained(self) -> None:
        """Record that all requests have finished."""
        self._drained.set()

    def __enter__(self) -> "Ending":
        """Start the threads. All are started now, since the system may have none left when the signal comes.

        Raises:
            NoThreadError: the system cannot start a thread.
        """
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        try:
            start_thread(self._speak, "last words")
            start_thread(self._wait, "end")
            start_thread(lambda: self._listen(reading), "signals")
        except NoThreadError:
            self._end_threads()
            os.close(reading)
            os.close(self._writing)
            raise
        # Set Python handlers: without them, a signal would end the process at once, and nothing would be written to the
        # pipe.
        handled = [each for each in _SIGNALS if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, _ignore) for number in handled}
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        # Close the pipe, which ends the thread that reads it.
        os.close(self._writing)
        # After a signal, the thread of the deadline goes on, since other threads may still block the exit.
        if not self._stopping.is_set():
            self._end_threads()

    def _end_threads(self) -> None:
        """End the threads that wait for a signal, or for what follows it."""
        self._is_over = True
        self._stopping.set()
        self._speaking.set()

    def _listen(self, reading: int) -> None:
        while received := os.read(reading, 1):
            if received[0] not in _SIGNALS or self._is_over:
                continue
            if self._stopping.is_set() and received[0] == signal.SIGHUP:
                continue
            if self._stopping.is_set():
                self._end(EXIT_ABORTED, "stopped at once; what was under way is lost")
            self._stopping.set()
            # The event loop may be closed already.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.stop.set)
        os.close(reading)

    def _wait(self) -> None:
        self._stopping.wait()
        if self._is_over:
            return
        if not self._drained.wait(self._timeout_seconds):
            self._end(EXIT_TIMED_OUT, f"not ended within {self._timeout_seconds:g} s; what was under way is lost")
        # Give the process time to exit by itself: nothing sets this event, so the wait is a sleep. Then end the
        # process.
        threading.Event().wait(self._close_seconds)
        self._end(EXIT_TIMED_OUT, f"all requests had their answers, but closing took over {self._close_seconds:g} s")

    def _end(self, code: int, why: str) -> None:
        """Exit the process, even if locks, the event loop, or the pipe of the log block other threads."""
        self._why = why
        self._speaking.set()
        self._spoken.wait(_SAY_SECONDS)
        self._leave(code)

    def _speak(self) -> None:
        self._speaking.wait()
        if self._is_over:
            return
        _log.warning("%s", self._why)
        self._last_act()
        logging.shutdown()
        self._spoken.set()
