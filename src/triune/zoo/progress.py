"""Progress reports while the zoo's models are built."""

from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from triune.core.units import Unit


class Outcome(Enum):
    """The result of building a model."""

    BUILT = "built"
    UP_TO_DATE = "up to date"
    KEPT = "kept"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """The report of a model.

    Attributes:
        name: the model's name.
        outcome: the result. KEPT: the folder has files that the zoo did not write, so it was not changed.
        units: the units that its config names.
        seconds: how long it took, including downloads.
        reason: why the model failed or was kept, and the remedy; else empty.
    """

    name: str
    outcome: Outcome
    units: tuple[Unit, ...]
    seconds: float
    reason: str = ""


class BuildProgress(Protocol):
    """Receives a report of each step, on the thread that builds."""

    def doing(self, model: str, what: str, done_bytes: int, total_bytes: int) -> None:
        """Report that `model` is at the step `what`; `total_bytes` is 0 if the size is unknown."""
        ...

    def finished(self, built: BuiltModel) -> None:
        """Report that a model is finished."""
        ...


class SilentProgress:
    """Ignores all reports."""

    def doing(self, model: str, what: str, done_bytes: int, total_bytes: int) -> None:
        """Do nothing."""

    def finished(self, built: BuiltModel) -> None:
        """Do nothing."""


class RichProgress:
    """Shows one line for each model on the terminal: a progress bar, then the result. A context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn(),
            console=console, transient=True,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def doing(self, model: str, what: str, done_bytes: int, total_bytes: int) -> None:
        """Update the progress bar of the model."""
        if model not in self._tasks:
            self._tasks[model] = self._bars.add_task(model, total=None)
        description = f"[bold]{model}[/] {escape(what)}"
        self._bars.update(self._tasks[model], description=description, completed=done_bytes, total=total_bytes or None)

    def finished(self, built: BuiltModel) -> None:
        """Replace the progress bar of the model by a line with the result, or remove it if the model was up to date."""
        if (task := self._tasks.pop(built.name, None)) is not None:
            self._bars.remove_task(task)
        match built.outcome:
            case Outcome.BUILT:
                self._console.print(f"[green]built[/] {built.name} in {built.seconds:.1f} s", highlight=False)
            case Outcome.UP_TO_DATE:
                pass
            case Outcome.KEPT:
                self._console.print(f"[yellow]kept[/] {built.name}: {escape(built.reason)}", highlight=False)
            case Outcome.FAILED:
                self._console.print(f"[bold red]failed[/] {built.name}: {escape(built.reason)}", highlight=False)
