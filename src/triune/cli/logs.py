"""Set up logging by Triton's log flags."""

import errno
import logging
import os
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from triune.cli.log_writer import LogWriter
from triune.core.errors import InvalidArgumentError

# The debug messages of these libraries describe only their own internals, several for each request.
_TALKATIVE = ("asyncio", "grpc")


class LogFormat(Enum):
    """The format of a log line. DEFAULT and ISO8601 are Triton's."""

    TRIUNE = "triune"
    DEFAULT = "default"
    ISO8601 = "ISO8601"


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The log flags.

    Attributes:
        verbose: 1 or more logs everything.
        has_info, has_warnings, has_errors: whether lines of this level are written.
        format: the format of a line.
        file: the log file; None for standard error.
    """

    verbose: int = 0
    has_info: bool = True
    has_warnings: bool = True
    has_errors: bool = True
    format: LogFormat = LogFormat.TRIUNE
    file: Path | None = None


def set_up_logs(options: LogOptions, console: Console) -> LogWriter:
    """Configure Python's logging by `options`. `console` writes to standard error.

    Returns:
        the writer. Other text for users should be printed through it, too: then a reader that blocks cannot block the
        server.

    Raises:
        InvalidArgumentError: the file cannot be written.
        NoThreadError: the system cannot start the writer's thread.
    """
    writer = LogWriter(_handler(options, console))
    writer.addFilter(lambda record: _is_wanted(options, record.levelno))
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO, handlers=[writer])
    logging.captureWarnings(True)
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.INFO)
    # Turn off the log of gRPC's library, which would write errors of clients to standard error itself: a reader of
    # standard error that is blocked would block the server.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return writer


def _handler(options: LogOptions, console: Console) -> logging.Handler:
    if options.file is None and options.format is LogFormat.TRIUNE and console.is_terminal:
        pretty = RichHandler(console=console, show_path=False)
        pretty.setFormatter(logging.Formatter("%(message)s"))
        return pretty
    try:
        handler = logging.StreamHandler() if options.file is None else _file_handler(options.file)
    except OSError as error:
        raise InvalidArgumentError(f"--log-file '{options.file}' cannot be written: {error.strerror}") from error
    if options.format is LogFormat.TRIUNE:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    else:
        handler.setFormatter(_TritonFormatter(options.format))
    return handler


def _file_handler(file: Path) -> logging.Handler:
    """A handler that appends to a file, which may be a device or a pipe that somebody reads.

    Raises:
        OSError: the file cannot be opened for writing, such as a folder, or a pipe that nobody reads.
    """
    # O_NONBLOCK makes it an error to open a pipe that nobody reads, which would otherwise wait for a reader, maybe
    # forever. It is turned off afterwards, since writing may wait.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(file, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "it is a pipe that nobody reads, or a socket; give a file", str(file)) from error
        raise
    os.set_blocking(descriptor, True)
    return logging.StreamHandler(os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace"))


def _is_wanted(options: LogOptions, level: int) -> bool:
    if level >= logging.ERROR:
        return options.has_errors
    if level >= logging.WARNING:
        return options.has_warnings
    # Debug messages are controlled by --log-verbose, as in Triton.
    return options.has_info if level >= logging.INFO else True


class _TritonFormatter(logging.Formatter):
    """Formats lines as Triton does, with times in UTC.

    `I1129 23:55:00.123456 4711 server.py:12] text`, or `2026-11-29T23:55:00Z I 4711 server.py:12] text`.
    """

    def __init__(self, form: LogFormat) -> None:
        place = "%(process)d %(filename)s:%(lineno)d] %(message)s"
        super().__init__(f"%(preamble)s {place}")
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        letter, moment = record.levelname[0], time.gmtime(record.created)
        if self._form is LogFormat.ISO8601:
            record.preamble = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', moment)} {letter}"
        else:
            microseconds = int(record.created % 1 * 1e6)
            record.preamble = f"{letter}{time.strftime('%m%d %H:%M:%S', moment)}.{microseconds:06d}"
        return super().format(record)
