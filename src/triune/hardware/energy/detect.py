"""Finds the energy meters of this machine."""

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from triune.core.clock import Clock
from triune.core.units import Presence, Unit
from triune.hardware.energy.chip_powers import chip_powers
from triune.hardware.energy.combined import AbsentMeter, CombinedMeter
from triune.hardware.energy.estimate import EstimatedMeter, LoadPower
from triune.hardware.energy.ioreport import IOReportMeter
from triune.hardware.energy.meter import EnergyMeter, RailRole
from triune.hardware.energy.nvml import NvmlMeter
from triune.hardware.energy.rapl import RaplMeter


class HasPresence(Protocol):
    """The presence of a unit: `UnitStatus` and `UnitFacts` have these attributes."""

    @property
    def unit(self) -> Unit:
        """The unit."""
        ...

    @property
    def presence(self) -> Presence:
        """Whether the machine has the unit."""
        ...


Import = Callable[[str], Any]
"""Imports a module, or returns None if it is not installed."""

_EXTRA: Final = "pip install 'triune[energy]'"


def import_installed(name: str) -> Any:
    """Import a module; None if it is not installed."""
    return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None


def this_machines_meter(units: Sequence[HasPresence], cpu_name: str, clock: Clock) -> EnergyMeter:
    """Make a meter of all units whose energy this machine can measure. Opening the driver of a GPU takes up to a
    second.

    Args:
        units: the machine's units.
        cpu_name: the name of its CPU.
        clock: the clock of the readings.
    """
    if sys.platform == "darwin":
        return apple_meter(units, cpu_name, clock, chip_powers(cpu_name), import_installed)
    return linux_meter(units, clock, import_installed)


def apple_meter(
    units: Sequence[HasPresence], cpu_name: str, clock: Clock, powers: Sequence[LoadPower], load: Import
) -> EnergyMeter:
    """The energy meter of a Mac: IOReport if `zeus-apple-silicon` is installed, and estimates for the other rails."""
    meters: list[EnergyMeter] = []
    reason = f"{cpu_name}'s energy is read through zeus-apple-silicon, not installed: {_EXTRA}"
    library = load("zeus_apple_silicon")
    if library is not None:
        meters.append(IOReportMeter(library, clock, cpu_name))
    if powers:
        meters.append(EstimatedMeter(powers, clock))
    return _with_reasons(meters, units, dict.fromkeys(Unit, reason), clock)


def linux_meter(units: Sequence[HasPresence], clock: Clock, load: Import) -> EnergyMeter:
    """The meter of a Linux machine: RAPL for the CPU, NVML for an NVIDIA GPU."""
    meters: list[EnergyMeter] = []
    reasons = dict.fromkeys(Unit, "no library tells this unit's energy here")
    rapl = RaplMeter(clock)
    if rapl.rails:
        meters.append(rapl)
    in_machine = platform.machine()
    reasons[Unit.CPU] = reasons[Unit.AMX] = (
        f"the kernel shows no energy counters (RAPL) of this {in_machine} CPU in /sys/class/powercap; virtual machines "
        "and containers usually have none"
    )
    if any(each.unit is Unit.GPU and each.presence is Presence.PRESENT for each in units):
        library = load("pynvml")
        if library is not None:
            meters.append(NvmlMeter(library, clock, os.environ))
        reasons[Unit.GPU] = f"the GPU's energy is read through nvidia-ml-py, not installed: {_EXTRA}"
    return _with_reasons(meters, units, reasons, clock)


def _with_reasons(
    meters: Sequence[EnergyMeter], units: Sequence[HasPresence], reasons: dict[Unit, str], clock: Clock
) -> EnergyMeter:
    """Combine the meters. For units of the machine that no meter counts, the result says why (`AbsentMeter`)."""
    counted = {unit for meter in meters for rail in meter.rails if rail.role is RailRole.COMPUTE for unit in rail.units}
    present = {each.unit for each in units if each.presence is Presence.PRESENT}
    absent = {unit: reasons[unit] for unit in Unit if unit in present - counted}
    parts: list[EnergyMeter] = [*meters, *([AbsentMeter(absent, clock)] if absent else [])]
    return parts[0] if len(parts) == 1 else CombinedMeter(parts, clock)
