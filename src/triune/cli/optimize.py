"""`triune optimize`: rewrite a model to an ONNX graph with fewer nodes, by levels."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from triune.api.optimizing import Optimization
from triune.api.optimizing import optimize as optimize_model
from triune.cli.arrays import read_array, split_pairs
from triune.cli.custom_ops import CustomOpFiles
from triune.cli.output import escaped, print_json, progress_bar
from triune.core.scratch import own_temporary_folder
from triune.core.units import Unit
from triune.graph.conversion.shapes import parse_shapes
from triune.graph.optimizing.level import Level


def optimize(
    source: Annotated[
        Path,
        typer.Argument(help="model.onnx, .mlpackage, .mlmodelc or .aimodel, or a model's folder in a repository."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write; overwritten.")],
    level: Annotated[
        Level,
        typer.Option(help="O0: valid, with shapes. O1: exact. O2: up to the rounding of fp32. O3: for the unit."),
    ] = Level.O2,
    unit: Annotated[Unit, typer.Option("--for", help="The unit that is to compute the model.")] = Unit.CPU,
    shapes: Annotated[
        list[str] | None, typer.Option("--shape", help="input=1,128: a size that is fixed; others stay free.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="name=file.npy: an input to compare on; other inputs are generated."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print what each pass did.")] = False,
    page: Annotated[
        Path | None,
        typer.Option("--explain-html", help="Write a page with the passes and the graph before and after."),
    ] = None,
    custom_ops: CustomOpFiles = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write the result although it could not be compared, or differs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a report as JSON.")] = False,
) -> None:
    """Rewrite a model to an ONNX graph with fewer nodes, and compare it with the source after each pass."""
    given = {name: read_array(name, file) for name, file in split_pairs(inputs or []).items()}
    with own_temporary_folder(), progress_bar() as progress:
        task = progress.add_task("reading", total=None)
        done = optimize_model(
            source,
            output,
            level=level,
            unit=unit,
            shapes=parse_shapes(shapes or []),
            inputs=given,
            custom_ops=custom_ops or (),
            force=force,
            page=page,
            report=lambda what: progress.update(task, description=what),
        )
    if as_json:
        print_json(_as_json(done))
    else:
        _print(done, explain=explain, page=page)


def _as_json(done: Optimization) -> dict[str, object]:
    return {
        "output": str(done.path),
        "level": done.level.value,
        "unit": done.unit.value,
        "nodes_before": done.num_nodes_before,
        "nodes_after": done.num_nodes_after,
        "passes": [
            {
                "name": each.name,
                "what": each.what,
                "change": each.change,
                "nodes_before": each.num_nodes_before,
                "nodes_after": each.num_nodes_after,
                "seconds": round(each.seconds, 3),
                "left_out": each.left_out,
            }
            for each in done.passes
        ],
        "idle": list(done.idle),
        "outputs": [
            {
                "output": each.name,
                "verdict": each.verdict.value,
                # Write infinity as text, since JSON has no number for it.
                "error": each.error if each.error < float("inf") else "Infinity",
                "allowed": each.allowed,
            }
            for each in done.outputs
        ],
        "not_compared": done.not_compared,
        "notes": list(done.notes),
    }


def _print(done: Optimization, *, explain: bool, page: Path | None) -> None:
    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    say(
        f"[green]wrote[/] {escaped(str(done.path))} ({done.level.value} for {done.unit.value}): "
        f"{done.num_nodes_before} nodes before, {done.num_nodes_after} after"
    )
    if explain:
        table = Table("pass", "what it did", "before", "after", "seconds")
        for each in done.passes:
            words = f"left out: {each.left_out}" if each.left_out else f"{each.what}: {each.change}"
            counts = (str(each.num_nodes_before), str(each.num_nodes_after), f"{each.seconds:.1f}")
            table.add_row(each.name, escaped(words), *counts)
        console.print(table)
        if done.idle:
            say(f"nothing to do for: {', '.join(done.idle)}")
        for each in done.outputs:
            say(
                f"output '{escaped(each.name)}': {each.verdict.value}, error {each.error:.3g} of {each.allowed:.3g} "
                "allowed"
            )
    else:
        for each in done.passes:
            if each.left_out:
                say(f"[yellow]left out[/] {each.name}: {escaped(each.left_out)}")
    for note in done.notes:
        say(f"[yellow]note[/] {escaped(note)}")
    if done.not_compared:
        say(f"[yellow]not compared[/] {escaped(done.not_compared)}")
    if page is not None:
        say(f"[green]wrote[/] {escaped(str(page))}: the graph before and after")
