"""What `triune units` says of energy and power."""

from rich.console import Console

from support.energy_meters import rail
from triune.cli.power import print_power
from triune.core.clock import VirtualClock
from triune.core.energy import EnergyKind
from triune.core.power import PowerMode
from triune.core.units import Unit
from triune.hardware.energy.combined import AbsentMeter, CombinedMeter
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.meter import EnergyMeter, RailRole


def printed(meter: EnergyMeter, width: int = 200) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        print_power(meter, console)
    return [line.rstrip() for line in capture.get().splitlines()]


def meter() -> EnergyMeter:
    clock = VirtualClock()
    rails = [
        rail("package-0"),
        rail("dram-0", role=RailRole.MEMORY),
        rail("gpu-estimate", frozenset({Unit.GPU}), kind=EnergyKind.ESTIMATED, is_load_only=True),
    ]
    return CombinedMeter([HandMeter(rails, clock), AbsentMeter({Unit.ANE: "no [rail] here"}, clock)], clock)


def test_each_rail_says_what_it_is_or_why_it_is_unavailable() -> None:
    lines = printed(meter())
    assert "  package-0        compute of cpu, amx, measured: a test" in lines
    assert "  dram-0           memory of cpu, amx, measured: a test" in lines
    assert "  gpu-estimate     compute of gpu, estimated: a test" in lines
    assert "  ane-unmetered    compute of ane, unavailable: no [rail] here" in lines


def test_each_mode_says_what_it_changes() -> None:
    lines = printed(meter())
    (low,) = [line for line in lines if line.startswith("  low_power ")]
    assert "one unit a model" in low
    assert "batches wait 5 ms at least" in low
    assert "0.25 of the engine's step_tokens" in low
    assert all(any(line.startswith(f"  {mode.value} ") for line in lines) for mode in PowerMode)


def test_it_fits_80_columns() -> None:
    assert max(map(len, printed(meter(), 80))) <= 80
