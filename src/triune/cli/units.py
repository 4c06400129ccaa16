"""`triune units`: this machine's compute units."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from triune.cli.output import print_json
from triune.core.units import Presence
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units

_COLOURS = {Presence.PRESENT: "green", Presence.EMULATED: "yellow", Presence.ABSENT: "dim"}


def units(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the compute units: which are present or emulated, and why one is absent."""
    found = detect_units(read_cpu())
    if as_json:
        print_json(
            [
                {
                    "unit": status.unit.value,
                    "presence": status.presence.value,
                    "description": status.description,
                    "reason": status.reason,
                }
                for status in found
            ]
        )
        return
    table = Table("unit", "", "what")
    for status in found:
        colour = _COLOURS[status.presence]
        table.add_row(status.unit.value, f"[{colour}]{status.presence.value}[/]", status.description or status.reason)
    Console().print(table)
