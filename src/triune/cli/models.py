"""`triune models`: lists a repository's models and checks whether they would load."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from triune import app
from triune.backends.gate.gate import describe_excess
from triune.cli.custom_ops import CustomOpFiles
from triune.cli.output import escaped, print_json, wide_console
from triune.cli.placements import fetch_placements, print_placements
from triune.config.model_config import TensorConfig
from triune.core.errors import InvalidArgumentError
from triune.core.tensors import format_shape
from triune.core.units import Unit
from triune.frontends.kserve.descriptions import verdict_json
from triune.graph.custom import read_custom_ops
from triune.repository.check import ModelCheck
from triune.repository.settings import RepositorySettings
from triune.runtimes.machine import this_machine

_URL: Final = "http://localhost:8000"


def models(
    repository: Annotated[
        list[Path] | None,
        typer.Option("--repository", "--model-repository", help="A model repository; may be repeated."),
    ] = None,
    is_placement: Annotated[
        bool,
        typer.Option(
            "--placement", help="Show where the models of a running server compute: requested, planned, observed."
        ),
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="For --placement: the server's address [default: http://localhost:8000].")
    ] = None,
    custom_ops: CustomOpFiles = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models of a repository, or where those of a running server compute.

    For each model of a repository, prints its versions, units, tensors, and errors that prevent loading. Configs and
    model files are read, and nothing is compiled. Where a server compared a unit's answers with those of cpu, the
    result is shown. Exits with 1 if a model would not load.
    """
    if is_placement:
        if repository:
            raise InvalidArgumentError("--placement is of a running server: name it with --url, and no --repository")
        found = fetch_placements(url or _URL)
        if as_json:
            print_json({"placements": found})
        else:
            print_placements(found, wide_console())
        return
    if url is not None:
        raise InvalidArgumentError("--url is for --placement, which shows the models of a running server")
    if not repository:
        raise InvalidArgumentError("name a repository with --repository, or ask a running server with --placement")
    machine = this_machine(custom_ops=read_custom_ops(custom_ops or ()))
    checks = app.make_repository(RepositorySettings(repository), machine).check()
    if as_json:
        print_json([_as_json(check) for check in checks])
    else:
        _print_table(checks)
    if any(check.problems for check in checks):
        raise typer.Exit(1)


def _print_table(checks: Sequence[ModelCheck]) -> None:
    table = Table("model", "versions", "backend", "units", "inputs", "outputs", "batch")
    console = Console()
    for check in checks:
        config = check.config
        table.add_row(
            escaped(check.name) if not check.problems else f"[red]{escaped(check.name)}[/]",
            ", ".join(map(str, check.versions)),
            check.backend,
            "\n".join(_unit(unit, check) for unit in check.units),
            "\n".join(_describe(each) for each in config.inputs.values()) if config else "",
            "\n".join(_describe(each) for each in config.outputs.values()) if config else "",
            str(config.batching.max_batch_size) if config else "",
        )
    console.print(table)
    for check in checks:
        for problem in check.problems:
            console.print(f"[red]{escaped(check.name)}[/] would not load: {escaped(problem)}", soft_wrap=True)
        for unit, verdict in check.verdicts.items():
            if verdict.excess:
                told = escaped(describe_excess(unit, verdict.reason))
                console.print(f"[yellow]{escaped(check.name)}[/] is not served on {unit.value}: {told}", soft_wrap=True)
        for hint in check.hints:
            console.print(f"[dim]{escaped(check.name)}: {escaped(hint)}[/]", soft_wrap=True)


def _unit(unit: Unit, check: ModelCheck) -> str:
    """A unit's name, and how far its answers were from those of `cpu`, if an earlier start compared them."""
    verdict = check.verdicts.get(unit)
    if verdict is None:
        return unit.value
    return (
        f"{unit.value} (refused)"
        if verdict.excess
        else f"{unit.value} (error {verdict.largest:.2g} in {verdict.precision})"
    )


def _describe(tensor: TensorConfig) -> str:
    return escaped(f"{tensor.name} {tensor.datatype.value}{format_shape(tensor.dims)}")


def _as_json(check: ModelCheck) -> dict[str, object]:
    config = check.config
    return {
        "name": check.name,
        "versions": list(check.versions),
        "backend": check.backend,
        "units": [unit.value for unit in check.units],
        "would_load": not check.problems,
        "problems": list(check.problems),
        "hints": list(check.hints),
        "gate": [verdict_json(unit, verdict) for unit, verdict in check.verdicts.items()],
        "max_batch_size": config.batching.max_batch_size if config else None,
        "inputs": [_tensor_json(each) for each in config.inputs.values()] if config else [],
        "outputs": [_tensor_json(each) for each in config.outputs.values()] if config else [],
    }


def _tensor_json(tensor: TensorConfig) -> dict[str, object]:
    return {"name": tensor.name, "datatype": tensor.datatype.value, "dims": list(tensor.dims)}
