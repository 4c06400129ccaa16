"""A log that never blocks: a thread writes lines from a bounded queue. If the queue is full, lines are dropped.

How many were dropped is logged later.
"""

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
    """A logging handler that passes records to another handler in a thread.

    Logging never blocks, even if the log is a full pipe, a stopped terminal or a hanging disk.
    """

    def __init__(
        self,
        target: logging.Handler,
        *,
        max_waiting_bytes: int = _MAX_WAITING_BYTES,
        flush_seconds: float = _FLUSH_SECONDS,
    ) -> None:
        """Args:
        target: the handler that writes, which may block. Its records have the formatted text as their message.
        max_waiting_bytes: the size of the queue; further records are dropped.
        flush_seconds: the longest time that `flush` waits.

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
        """Queue a record."""
        try:
            ready = copy.copy(record)
            ready.msg, ready.args = text_of(record), None
            ready.exc_info = ready.exc_text = ready.stack_info = None
        except Exception:  # noqa: BLE001 - a message that cannot be made is told of as every handler does
            self.handleError(record)
            return
        self.leave(lambda: self._target.handle(ready), len(ready.msg))

    def say(self, make: Callable[[], str]) -> None:
        """Queue text for standard error that is not part of the log. `make` is called in the writer's thread, and
        returns the text.
        """

        def write() -> None:
            sys.stderr.write(make())
            sys.stderr.flush()

        self.leave(write, 0)

    def leave(self, write: Callable[[], object], num_bytes: int) -> None:
        """Have the writer's thread call `write`. The call takes `num_bytes` of the queue, and is dropped if the queue
        has no room for it.
        """
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
        """Wait until the queue is written, at most `flush_seconds`."""
        self.is_read()

    def is_read(self) -> bool:
        """Wait as `flush` does.

        Returns:
            whether the queue is written. If not, nobody reads the log.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._is_writing, self._flush_seconds)

    def close(self) -> None:
        """Write the queue for at most `flush_seconds`, and close."""
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
            # Ignore errors of writing the log, which cannot be logged. (Rich raises SystemExit for a broken pipe.)
            with contextlib.suppress(Exception, SystemExit):
                write()
            with self._changed:
                # Subtract the record's size only now: a record takes memory until it is written.
                self._waiting_bytes -= num_bytes

    def _tell_of_lost(self) -> None:
        """Log how many lines were dropped, if any were. The caller must hold the lock."""
        if self._num_lost:
            lost, self._num_lost = _lost(self._num_lost), 0
            self._waiting.append((0, lambda: self._target.handle(lost)))


def _lost(count: int) -> logging.LogRecord:
    text = f"{count} lines of the log are lost here: nobody read them, and no more could wait"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
