"""Describes this machine's units, with the runtimes that serve them and with measurements on this machine."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from triune.core.cache import cache_folder
from triune.core.runtime import Runtime
from triune.core.units import Presence, Unit
from triune.hardware.cpu import CoreLevel
from triune.hardware.describe import describe_units
from triune.hardware.facts import UnitFacts
from triune.hardware.figures import Figure
from triune.hardware.measured import load_measured, machine_key
from triune.hardware.outputs import read_outputs
from triune.runtimes.registry import served
from triune.runtimes.versions import runtimes_by_unit

_MEASURE: Final = "triune units --measure"
"""If a figure is missing that a measurement would give, the reason recommends this command."""


def described_units(runtimes: Mapping[str, Runtime] | None = None) -> Sequence[UnitFacts]:
    """Describe every unit of this machine, without measurements. This takes up to two seconds.

    Args:
        runtimes: the runtimes by backend name; None takes the installed ones, without importing their libraries.
    """
    found = describe_units(read_outputs())
    if runtimes is None:
        by_unit = runtimes_by_unit(served([each.status for each in found]))
    else:
        by_unit = runtimes_by_unit({name: each.units() for name, each in runtimes.items()})
    return [_asked_core_ml(dataclasses.replace(each, runtimes=by_unit[each.unit])) for each in found]


def known_units(runtimes: Mapping[str, Runtime] | None = None) -> Sequence[UnitFacts]:
    """Describe every unit of this machine, with the figures that were measured here. This takes up to two seconds.

    Args:
        runtimes: the runtimes by backend name; None takes the installed ones, without importing their libraries.
    """
    found = described_units(runtimes)
    kept = load_measured(measured_folder(), machine_key(found))
    return with_measured(found, kept.figures, kept.reason)


def with_measured(
    units: Sequence[UnitFacts], figures: Mapping[Unit, Mapping[str, Figure]], reason: str = ""
) -> Sequence[UnitFacts]:
    """Add the figures that were measured on this machine to the units, next to the figures of the table of chips.

    Args:
        units: the units.
        figures: the figures by unit and name. If a unit already has a figure of that name, "_here" is appended to the
            name.
        reason: why the measurements cannot be read, for the notes of missing figures; "" if they can be read.
    """
    bandwidth = {name: figure for name, figure in figures.get(Unit.CPU, {}).items() if name.startswith("memory_")}
    return [
        _with(each, {**(bandwidth if each.is_memory_shared else {}), **figures.get(each.unit, {})}, reason)
        for each in units
    ]


def measured_folder() -> Path:
    """The folder of figures that were measured on this machine."""
    return cache_folder() / "units"


def times_folder() -> Path:
    """The folder of times of models that were measured on this machine (`planning.measured`)."""
    return cache_folder() / "times"


def _asked_core_ml(facts: UnitFacts) -> UnitFacts:
    """Complete the description of a Neural Engine: if the system did not report the number of cores, ask Core ML."""
    has_core_ml = any(each.name == "coreml" for each in facts.runtimes)
    if facts.unit is not Unit.ANE or facts.presence is not Presence.PRESENT or facts.cores or not has_core_ml:
        return facts
    from triune.runtimes.coreml.devices import core_ml_devices, neural_engine_cores

    return with_neural_engine_cores(facts, neural_engine_cores(core_ml_devices()))


def with_neural_engine_cores(facts: UnitFacts, num_cores: int | None) -> UnitFacts:
    """The description of a Neural Engine with `num_cores` as its number of cores; unchanged if that is None."""
    if num_cores is None:
        return facts
    unavailable = {name: why for name, why in facts.unavailable.items() if name != "cores"}
    figures = {name: figure for name, figure in facts.figures.items() if name != "cores"}
    cores = (CoreLevel("neural engine", num_cores),)
    return dataclasses.replace(facts, cores=cores, figures=figures, unavailable=unavailable)


def _with(facts: UnitFacts, figures: Mapping[str, Figure], reason: str) -> UnitFacts:
    named = {f"{name}_here" if name in facts.figures else name: figure for name, figure in figures.items()}
    unavailable = {
        name: f"{why}: {reason}" if reason and _MEASURE in why else why
        for name, why in facts.unavailable.items()
        if name not in figures
    }
    return dataclasses.replace(facts, figures={**facts.figures, **named}, unavailable=unavailable)
