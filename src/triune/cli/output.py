"""Output of the commands: JSON, escaped text, and progress bars."""

import json
import re
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from triune.core.printable import UNPRINTABLE, printable


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
