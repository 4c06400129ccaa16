"""Output of the commands: JSON, escaped text, and progress bars."""

import json
import os
import re
import sys
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from triune.core.printable import UNPRINTABLE, printable

_PIPED_COLUMNS: Final = 160


def print_json(value: Any) -> None:
    """Print `value` as indented JSON on standard output.

    Raises ValueError for NaN and infinities, which JSON cannot express.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    # Escape the control characters that `json` has left as they are, but not the line breaks of the indentation.
    sys.stdout.write("\n".join(UNPRINTABLE.sub(_in_json, line) for line in text.split("\n")) + "\n")


def escaped(text: str) -> str:
    """Escape text from outside for rich: no markup, no terminal control sequences, no line breaks."""
    return escape(printable(text))


def escaped_lines(text: str) -> str:
    """Escape text as `escaped` does, but keep line breaks, for text with line breaks by Triune."""
    return "\n".join(escaped(line) for line in text.split("\n"))


def _in_json(found: re.Match[str]) -> str:
    return json.dumps(found.group())[1:-1]


def wide_console() -> Console:
    """A console on standard output for tables. In a file or a pipe, which has no width, its lines are long."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=_PIPED_COLUMNS)


def whole_table(*headers: str) -> Table:
    """A table whose cells are folded in a narrow terminal, so that no name and no figure loses its end."""
    return Table(*(Column(each, overflow="fold") for each in headers))


def progress_bar() -> Progress:
    """Make a progress bar on standard error, so that standard output can be piped."""
    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        # Disable the bar if standard error is not a terminal, where it would leave an empty line.
        disable=not console.is_terminal,
    )
