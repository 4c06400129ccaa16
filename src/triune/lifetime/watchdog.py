"""A watchdog thread, which logs what blocks the event loop."""

import asyncio
import contextlib
import logging
import sys
import threading
import time
import traceback
from types import TracebackType

from triune.core.threads import start_thread

_log = logging.getLogger(__name__)


class Watchdog:
    """A thread that regularly has the event loop call a function. If the loop does not call it in time, the thread logs
    the loop's stack.

    For each call that blocks, the stack is logged once.
    """

    def __init__(self, limit_seconds: float = 1.0, pause_seconds: float = 1.0) -> None:
        """Create and enter this on the loop's thread.

        Args:
            limit_seconds: how long the loop may take to call the watchdog's function.
            pause_seconds: how long the thread waits after a call of the function before it asks for the next one.
        """
        self._limit_seconds = limit_seconds
        self._pause_seconds = pause_seconds
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._is_over = threading.Event()

    def __enter__(self) -> "Watchdog":
        start_thread(self._watch, "watchdog")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()

    def _watch(self) -> None:
        # The event loop may be closed before this thread ends.
        with contextlib.suppress(RuntimeError):
            while not self._is_over.wait(self._pause_seconds):
                sign = threading.Event()
                asked_at = time.monotonic()
                self._loop.call_soon_threadsafe(sign.set)
                if sign.wait(self._limit_seconds):
                    continue
                _log.error(
                    "the event loop is held for more than %g s, and nobody is answered; it is at: %s",
                    self._limit_seconds,
                    self._where(),
                )
                while not sign.wait(self._limit_seconds) and not self._is_over.is_set():
                    pass
                if sign.is_set():
                    _log.warning("the event loop goes on after %.1f s", time.monotonic() - asked_at)

    def _where(self) -> str:
        """The functions on the stack of the event loop's thread, the innermost first."""
        frame = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage]
        if frame is None:
            return "a thread that has ended"
        stack = reversed(traceback.extract_stack(frame))
        return " < ".join(f"{each.name} ({each.filename}:{each.lineno})" for each in stack)
