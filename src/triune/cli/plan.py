"""`triune plan`: which unit should compute which part of a model, how long it takes and how many joules."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from triune.api import planning
from triune.api.planning import DEFAULT_TOKENS
from triune.cli.arrays import read_constants, split_pairs
from triune.cli.custom_ops import CustomOpFiles
from triune.cli.output import print_json, progress_bar
from triune.cli.plan_text import print_comparison, print_plan
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.planning.as_json import as_json
from triune.planning.page import page_of
from triune.planning.plan import Goal


class _Options(TypedDict):
    """The options that `planning.plan` and `planning.compare` share."""

    chip: str | None
    units: Sequence[str]
    shapes: Mapping[str, str]
    constants: Mapping[str, Array]
    tokens: int
    latency_limit_ms: float | None
    function: str | None
    custom_ops: Sequence[Path]
    report: Callable[[str], None]


_MS = {"ms": 1.0, "s": 1e3, "us": 1e-3}


def plan(
    model: Annotated[
        Path, typer.Argument(help="model.onnx, .mlpackage, .mlmodelc, .aimodel or .gguf, or a directory of weights.")
    ],
    chip: Annotated[str | None, typer.Option(help="The chip, such as m2-pro; without it, this machine's.")] = None,
    goal: Annotated[
        Goal, typer.Option("--for", help="The shortest call, the most calls a second, or the least energy.")
    ] = Goal.LATENCY,
    latency_limit: Annotated[
        str | None, typer.Option(help="For --for energy: the longest time of a call, such as 20ms.", show_default=False)
    ] = None,
    units: Annotated[
        list[str] | None, typer.Option("--unit", help="A unit that the plan may use; all, if none is named.")
    ] = None,
    shapes: Annotated[
        list[str] | None, typer.Option("--shape", help="input=1,128: the shape of an input with free dimensions.")
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option("--constant", help="input=3 or input=1,2 or input=file.npy: the input becomes a constant."),
    ] = None,
    tokens: Annotated[
        int, typer.Option(help="Of a transformer's checkpoint: the tokens of the prompt, and of the context.")
    ] = DEFAULT_TOKENS,
    function: Annotated[
        str | None, typer.Option(help="The function of a model that has several, such as encoder.")
    ] = None,
    custom_ops: CustomOpFiles = None,
    is_comparing: Annotated[
        bool, typer.Option("--compare", help="The plans for latency, throughput and energy side by side.")
    ] = False,
    as_page: Annotated[bool, typer.Option("--html", help="Print a page that draws the plan: > plan.html")] = False,
    as_values: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Plan a model for a chip: the unit of each part, predicted times and joules, and what would make it faster."""
    if as_page and as_values:
        raise InvalidArgumentError("a plan is printed as a page (--html) or as JSON (--json), not as both")
    if is_comparing and goal is not Goal.LATENCY:
        raise InvalidArgumentError(f"--compare plans for every goal: leave --for {goal.value} out")
    limit = None if latency_limit is None else _milliseconds(latency_limit)
    with progress_bar() as progress:
        task = progress.add_task("reading", total=None)

        def report(what: str) -> None:
            progress.update(task, description=what)

        options = _Options(
            chip=chip,
            units=units or (),
            shapes=split_pairs(shapes or [], option="--shape", form="input=1,128"),
            constants=read_constants(constants or []),
            tokens=tokens,
            latency_limit_ms=limit,
            function=function,
            custom_ops=custom_ops or (),
            report=report,
        )
        compared = planning.compare(model, **options) if is_comparing else []
        plans = [each for same in compared for each in same] or planning.plan(model, goal=goal, **options)
    if as_page:
        sys.stdout.write(page_of(plans))
    elif as_values:
        print_json(as_json(plans))
    elif is_comparing:
        for each in compared:
            print_comparison(each)
    else:
        for each in plans:
            print_plan(each)


def _milliseconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s)", text.strip())
    if found is None or not float(found[1]):
        raise InvalidArgumentError(f"a limit of latency of '{text}' cannot be read; write a time such as 20ms or 0.5s")
    return float(found[1]) * _MS[found[2]]
