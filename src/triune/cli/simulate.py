"""`triune simulate`: what Triune's scheduler would do with recorded or random requests on a chip."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from triune.api import simulation
from triune.cli.arrays import split_pairs
from triune.cli.output import print_json, progress_bar
from triune.cli.simulate_text import print_simulation
from triune.core.errors import InvalidArgumentError
from triune.simulation.page import page_of
from triune.simulation.report import as_json


def simulate(
    repository: Annotated[
        list[Path],
        typer.Option("--repository", "--model-repository", help="The model repository; may be repeated."),
    ],
    chip: Annotated[str, typer.Option(help="The chip, such as m2-pro.")],
    trace: Annotated[Path | None, typer.Option(help="A trace, which `triune serve --record` writes.")] = None,
    arrivals: Annotated[
        list[str] | None, typer.Option(help="MODEL=poisson:RATE[:ROWS]: random requests, at a mean rate a second.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.001, max=1e6, help="How long --arrivals last.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="The seed of --arrivals.")] = 0,
    load: Annotated[
        str | None, typer.Option(help="80%: changes the rates of --arrivals to this share of what the chip can do.")
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="Of a trace, only the requests to this model; may be repeated.")
    ] = None,
    sizes: Annotated[
        list[str] | None, typer.Option("--size", help="tokens=128: the size of a free dimension in the model files.")
    ] = None,
    compare: Annotated[bool, typer.Option(help="Compare with single units, round robin and least loaded.")] = True,
    as_page: Annotated[bool, typer.Option("--html", help="Print a page: > simulation.html")] = False,
    as_values: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Simulate the scheduler on a chip: throughput, latencies, joules and use of each unit. Nothing is measured."""
    if as_page and as_values:
        raise InvalidArgumentError("a simulation is printed as a page (--html) or as JSON (--json), not as both")
    with progress_bar() as progress:
        task = progress.add_task("reading", total=None)
        found = simulation.simulate(
            repository,
            chip=chip,
            trace=trace,
            arrivals=arrivals or (),
            seconds=seconds,
            seed=seed,
            load=None if load is None else _share(load),
            models=models or (),
            sizes=_sizes(sizes or ()),
            compare=compare,
            report=lambda what: progress.update(task, description=what),
        )
    if as_page:
        sys.stdout.write(page_of(found))
    elif as_values:
        print_json(as_json(found))
    else:
        print_simulation(found)


def _share(text: str) -> float:
    number = text.removesuffix("%")
    if number == text or not number.replace(".", "", 1).isdecimal() or not 0 < float(number) <= 1000:
        raise InvalidArgumentError(f"a load of '{text}' cannot be read; write a share above 0 such as 80%")
    return float(number) / 100


def _sizes(texts: Sequence[str]) -> dict[str, int]:
    pairs = split_pairs(texts, option="--size", form="tokens=128")
    for name, text in pairs.items():
        if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**31):
            raise InvalidArgumentError(f"--size {name}={text}: a size is a whole number above 0, as in tokens=128")
    return {name: int(text) for name, text in pairs.items()}
