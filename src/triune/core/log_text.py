"""Formats log records as escaped text, so that a record can neither forge a log line nor send control sequences to a
terminal.
"""

import logging
import traceback

from triune.core.printable import printable


def text_of(record: logging.LogRecord) -> str:
    """Format a record: the message in one line, then the traceback, if there is one, indented by two spaces."""
    lines = [printable(record.getMessage())]
    beneath: list[str] = []
    if record.exc_info and record.exc_info[0] is not None:
        beneath += "".join(traceback.format_exception(*record.exc_info)).splitlines()
    elif record.exc_text:
        beneath += record.exc_text.splitlines()
    if record.stack_info:
        beneath += record.stack_info.splitlines()
    return "\n".join([*lines, *(f"  {printable(line)}" for line in beneath)])


class WorkerFormatter(logging.Formatter):
    """Formats a worker process's records for `hosting.output`: the level's name, then the text."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return f"{record.levelname} {text_of(record)}"
