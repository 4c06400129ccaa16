"""Prints energy and power for `triune units`: the machine's meters, and the effects of the power modes."""

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.table import Table

from triune.cli.output import escaped
from triune.core.power import EFFECTS, ModeEffects
from triune.core.units import Unit
from triune.hardware.energy.meter import EnergyMeter

_WIDTH: Final = 18


def print_power(meter: EnergyMeter, console: Console) -> None:
    """Print a line for each rail of the meter, and one for each power mode."""
    reading = meter.read()
    table = Table.grid(padding=(0, 1))
    table.add_column(width=_WIDTH, overflow="fold")
    table.add_column(overflow="fold")
    table.add_row("[bold]energy[/]", "")
    for rail in meter.rails:
        units = ", ".join(unit.value for unit in Unit if unit in rail.units)
        reason = reading.unavailable.get(rail.name)
        said = f"unavailable: {reason}" if reason else f"{rail.kind.value}: {rail.source}"
        table.add_row(f"  {escaped(rail.name)}", escaped(f"{rail.role.value} of {units}, {said}"))
    table.add_row("[bold]power modes[/]", "")
    for mode, effects in EFFECTS.items():
        table.add_row(f"  {mode.value}", "; ".join(_changes(effects)))
    console.print(table, highlight=False)


def _changes(effects: ModeEffects) -> Iterator[str]:
    yield "one unit a model, with the fewest joules a row" if effects.is_one_unit else "all units of a model"
    if effects.min_delay_us:
        yield f"batches wait {effects.min_delay_us / 1000:g} ms at least"
    if effects.step_share < 1:
        yield f"{effects.step_share:g} of the engine's step_tokens"
    yield "battery and heat count" if effects.is_overruled else "battery and heat change nothing"
