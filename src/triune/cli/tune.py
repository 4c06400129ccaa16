"""`triune tune`: try configurations of a served model on this machine, and write the best one."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from triune.api.staging import write_text
from triune.api.tuning import CALLERS
from triune.api.tuning import tune as tune_model
from triune.cli.custom_ops import CustomOpFiles
from triune.cli.output import escaped, escaped_lines, print_json, progress_bar
from triune.config.layout import CONFIG_FILENAME
from triune.core.errors import AlreadyExistsError, InvalidArgumentError, UnsupportedError
from triune.core.scratch import own_temporary_folder
from triune.tuning.measurement import Objective
from triune.tuning.page import page_of
from triune.tuning.report import Tried, Tuning, as_json

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def tune(
    model: Annotated[Path, typer.Argument(help="A model's folder in a repository, such as models/minilm.")],
    objective: Annotated[
        Objective,
        typer.Option(help="The most requests a second, the shortest time of one caller, or the least joules."),
    ] = Objective.THROUGHPUT,
    p99_ms: Annotated[
        float | None, typer.Option("--p99-ms", help="Of 100 requests, 99 must be answered within this time.")
    ] = None,
    budget: Annotated[str, typer.Option(help="The time for all trials, such as 60s or 10m.")] = "60s",
    inputs: Annotated[
        Path | None, typer.Option("--input", help="FILE.npz: inputs by name, whose rows are the requests.")
    ] = None,
    callers: Annotated[
        str, typer.Option(help="How many requests are under way at once, in the loads of each trial.")
    ] = ",".join(map(str, CALLERS)),
    custom_ops: CustomOpFiles = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write the best config.pbtxt into.")
    ] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write a page with the trade-off curve.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a config.pbtxt in the folder.")] = False,
    as_values: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try units, instances, batch sizes, delays and threads of a model, and find the best config within a budget."""
    target = output / CONFIG_FILENAME if output is not None else None
    if target is not None and target.exists() and not force:
        raise AlreadyExistsError(f"'{target}' exists; give --force to overwrite it, or another folder")
    with own_temporary_folder(), progress_bar() as progress:
        task = progress.add_task("the given config", total=1.0)
        found = tune_model(
            model,
            objective=objective,
            p99_ms=p99_ms,
            budget_seconds=_seconds(budget),
            inputs=inputs,
            callers=_callers(callers),
            custom_ops=custom_ops or (),
            report=lambda what, share: progress.update(task, description=escaped(what), completed=share),
        )
    if found.unmet:
        target = None
    # Print first: what was found is told whatever happens to the files.
    if as_values:
        print_json(as_json(found))
    else:
        _print(found, has_target=target is not None)
    for path, text in ((target, found.config), (page, page_of(found))):
        if path is not None:
            write_text(path, text)
            if not as_values:
                Console().print(f"[green]wrote[/] {escaped(str(path))}", highlight=False, soft_wrap=True)
    if found.unmet:
        raise UnsupportedError(f"{found.unmet}; allow it more time, or fewer callers at once")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if found is None:
        raise InvalidArgumentError(f"a budget of '{text}' cannot be read; write a time such as 60s or 10m")
    return float(found[1]) * _SECONDS[found[2]]


def _callers(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,7}", word) for word in words):
        raise InvalidArgumentError(f"--callers '{text}' cannot be read; write whole numbers such as 1,4,16")
    return [int(word) for word in words]


def _print(tuning: Tuning, *, has_target: bool) -> None:
    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    has_joules = tuning.objective is Objective.JOULES
    table = Table(
        Column("config", overflow="fold"),
        "callers",
        "requests/s",
        "p50 ms",
        "p99 ms",
        *(["joules"] if has_joules else []),
        "",
    )
    for each in tuning.tried:
        table.add_row(escaped(each.words), *_figures(each, has_joules=has_joules), _remark(each, tuning))
    console.print(table)
    for note in tuning.notes:
        say(f"[yellow]note[/] {escaped(note)}")
    say(f"{len(tuning.found.trials)} trials of {len(tuning.tried)} configs in {tuning.seconds:.0f} s")
    say(f"[bold]{escaped(tuning.verdict)}[/]")
    if tuning.changes:
        say(escaped_lines(f"changes in {CONFIG_FILENAME}:\n{tuning.changes.rstrip()}"))
    if tuning.changes and not tuning.unmet and not has_target:
        say(escaped_lines(f"the whole {CONFIG_FILENAME}:\n{tuning.config.rstrip()}"))


def _figures(tried: Tried, *, has_joules: bool) -> list[str]:
    if tried.rank is None:
        return [""] * (5 if has_joules else 4)
    level = tried.rank.level
    figures = [str(level.callers), *map(_number, (level.requests_per_second, level.p50_ms, level.p99_ms))]
    return [*figures, _number(level.joules or 0.0)] if has_joules else figures


def _remark(tried: Tried, tuning: Tuning) -> str:
    if tried.rank is None:
        return f"[yellow]left out[/] {escaped(tried.measurement.failure)}"
    if not tried.rank.is_met:
        return "p99 above the limit"
    return "[green]best[/]" if tried.candidate == tuning.found.best else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
