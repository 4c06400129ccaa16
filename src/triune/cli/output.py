"""How commands print for programs, and report progress to people."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn


def print_json(value: Any) -> None:
    """Print `value` as JSON on standard output, indented for a person, stable for a program.

    Raises ValueError for NaN and infinities, which JSON cannot express.
    """
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def progress_bar() -> Progress:
    """A progress display on standard error, so that output can be piped."""
    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        # Elsewhere it would leave an empty line behind.
        disable=not console.is_terminal,
    )
