"""What a log says of a record: nothing in it makes a line of its own, or commands the terminal that shows it."""

import logging
import traceback

from triune.core.printable import printable


def text_of(record: logging.LogRecord) -> str:
    """The message in one line; beneath it what was raised, each line of that two spaces in."""
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
    """A record of a worker process, as `hosting.output` passes it on: its level's name, and its text."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return f"{record.levelname} {text_of(record)}"
