"""Copy a worker process's output to the server's log, line by line."""

import logging
import os
import re
from typing import Final

from triune.core.threads import start_thread

_log = logging.getLogger(__name__)

_MAX_LINE_BYTES = 1 << 16
_LEVEL: Final = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) ")


def has_log() -> bool:
    """Whether this process has a log handler. If not, a worker process inherits this process's output."""
    return bool(logging.getLogger().handlers)


def log_lines(reading: int, name: str) -> None:
    """Start a thread that logs each line from a pipe, until the other end is closed.

    Args:
        reading: the pipe; closed at the end.
        name: the worker's name.

    Raises:
        NoThreadError: the system cannot start a thread. The caller still owns the pipe then.
    """
    start_thread(lambda: _read(reading, name), f"output of {name}")


def _read(reading: int, name: str) -> None:
    level, rest = logging.INFO, b""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while chunk := pipe.read(_MAX_LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) >= _MAX_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                level = _log_line(line, name, level)
    if rest:
        _log_line(rest, name, level)


def _log_line(line: bytes, name: str, level: int) -> int:
    """Log a line at the level that it begins with, or else at `level`, that of the line before.

    Returns:
        the level.
    """
    # A line that is overwritten by carriage returns, such as a progress bar, is logged in its last state.
    text = line.decode(errors="surrogateescape").rstrip("\r").rpartition("\r")[2]
    given = _LEVEL.match(text)
    if given is not None:
        level, text = logging.getLevelNamesMapping()[given[1]], text[given.end() :]
    elif not text.startswith("  "):
        level = logging.INFO
    if text.strip():
        _log.log(level, "%s: %s", name, text)
    return level
