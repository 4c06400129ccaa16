"""A log that nobody waits for: a thread writes it, and where nobody reads, lines are lost and counted."""

import contextlib
import copy
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable

from triune.core.log_text import text_of
from triune.core.threads import start_thread

_MAX_WAITING_BYTES = 4 << 20
_FLUSH_SECONDS = 1.0
_OVERHEAD_BYTES = 512


class LogWriter(logging.Handler):
    """Hands what is logged to a thread, which hands it to another handler.

    Whoever logs goes on at once, be the log a pipe that is full, a terminal that was stopped, or a disk that hangs.
    """

    def __init__(
        self,
        target: logging.Handler,
        *,
        max_waiting_bytes: int = _MAX_WAITING_BYTES,
        flush_seconds: float = _FLUSH_SECONDS,
    ) -> None:
        """Args:
        target: writes; it may take its time. Records reach it with their text as their message, and no arguments.
        max_waiting_bytes: what waits to be written; what comes on top is lost.
        flush_seconds: how long `flush` waits at the most.

        Raises:
            NoThreadError: the system has no thread for it.
        """
        super().__init__()
        self._target = target
        self._max_waiting_bytes = max_waiting_bytes
        self._flush_seconds = flush_seconds
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Callable[[], object]]] = deque()
        self._waiting_bytes = 0
        self._num_lost = 0
        self._is_writing = False
        start_thread(self._write, "log")

    def emit(self, record: logging.LogRecord) -> None:
        """Leave a record to the thread."""
        try:
            ready = copy.copy(record)
            ready.msg, ready.args = text_of(record), None
            ready.exc_info = ready.exc_text = ready.stack_info = None
        except Exception:  # noqa: BLE001 - a message that cannot be made is told of as every handler does
            self.handleError(record)
            return
        self.leave(lambda: self._target.handle(ready), len(ready.msg))

    def say(self, text: str) -> None:
        """Leave text that is no record, for standard error, to the thread."""

        def write() -> None:
            sys.stderr.write(text)
            sys.stderr.flush()

        self.leave(write, len(text))

    def leave(self, write: Callable[[], object], num_bytes: int) -> None:
        """Leave a call to the thread, after those before it; it is lost if too much waits."""
        with self._changed:
            num_bytes += _OVERHEAD_BYTES
            if self._waiting_bytes + num_bytes > self._max_waiting_bytes:
                self._num_lost += 1
                return
            self._tell_of_lost()
            self._waiting.append((num_bytes, write))
            self._waiting_bytes += num_bytes
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything is written; not for long."""
        self.is_read()

    def is_read(self) -> bool:
        """Whether everything is written now, or soon. Else nobody reads it."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._is_writing, self._flush_seconds)

    def close(self) -> None:
        """Write what waits, if that can be done soon."""
        self.flush()
        super().close()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._num_lost)
                if not self._waiting:
                    self._tell_of_lost()
                num_bytes, write = self._waiting.popleft()
                self._is_writing = True
            # Where the log itself cannot be written, there is no one to tell. (Rich exits where a pipe is broken.)
            with contextlib.suppress(Exception, SystemExit):
                write()
            with self._changed:
                # Only now: what is being written takes room, too.
                self._waiting_bytes -= num_bytes

    def _tell_of_lost(self) -> None:
        """Where lines were lost, a line that says how many. The lock is held."""
        if self._num_lost:
            lost, self._num_lost = _lost(self._num_lost), 0
            self._waiting.append((0, lambda: self._target.handle(lost)))


def _lost(count: int) -> logging.LogRecord:
    text = f"{count} lines of the log are lost here: nobody read them, and no more could wait"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
