"""Who is told how the building goes."""

from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from triune.core.units import Unit


class Outcome(Enum):
    """What became of a model."""

    BUILT = "built"
    UP_TO_DATE = "up to date"
    KEPT = "kept"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model that was to be built.

    Attributes:
        name: the model.
        outcome: what became of it. KEPT: its folder has files that the zoo did not write, and was left as it is.
        units: the units that its config names.
        seconds: how long it took, fetching included.
        reason: why it failed or was kept, and the remedy; else empty.
    """

    name: str
    outcome: Outcome
    units: tuple[Unit, ...]
    seconds: float
    reason: str = ""


class BuildProgress(Protocol):
    """Told of every step. Called on the thread that builds."""

    def doing(self, model: str, what: str, done_bytes: int, total_bytes: int) -> None:
        """`model` is at the step `what`; `total_bytes` is 0 where nobody knows how much there is to do."""
        ...

    def finished(self, built: BuiltModel) -> None:
        """A model is done."""
        ...


class SilentProgress:
    """Tells nobody."""

    def doing(self, model: str, what: str, done_bytes: int, total_bytes: int) -> None:
        """Nothing."""

    def finished(self, built: BuiltModel) -> None:
        """Nothing."""


class RichProgress:
    """A line a model on the terminal: a bar while it is built, then what became of it. A context manager."""

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
        """Move the model's bar."""
        if model not in self._tasks:
            self._tasks[model] = self._bars.add_task(model, total=None)
        description = f"[bold]{model}[/] {escape(what)}"
        self._bars.update(self._tasks[model], description=description, completed=done_bytes, total=total_bytes or None)

    def finished(self, built: BuiltModel) -> None:
        """Put one line in place of the model's bar; none for a model that was up to date."""
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
