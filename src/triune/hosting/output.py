"""What a worker process writes: lines of the server's log, which is read however slowly the log is."""

import logging
import os
import re
from typing import Final

from triune.core.threads import start_thread

_log = logging.getLogger(__name__)

_MAX_LINE_BYTES = 1 << 16
_LEVEL: Final = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) ")


def has_log() -> bool:
    """Somebody has said where this process logs. Else what a worker writes goes where this process writes."""
    return bool(logging.getLogger().handlers)


def log_lines(reading: int, name: str) -> None:
    """Log each line that comes out of a pipe, in a thread, until nobody has its other end any more.

    Args:
        reading: the pipe; closed at the end.
        name: the worker's.

    Raises:
        NoThreadError: the system has no thread for it. The pipe is the caller's then.
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
    """Log a line at its own level, or of one that goes on at that of the one before. Returns it."""
    # Of a line that was written over again and again, as progress is, the last state.
    text = line.decode(errors="surrogateescape").rstrip("\r").rpartition("\r")[2]
    given = _LEVEL.match(text)
    if given is not None:
        level, text = logging.getLevelNamesMapping()[given[1]], text[given.end() :]
    elif not text.startswith("  "):
        level = logging.INFO
    if text.strip():
        _log.log(level, "%s: %s", name, text)
    return level
