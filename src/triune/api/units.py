"""`triune.units`: what this machine has, and what was measured of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from triune.core.cache import cache_folder
from triune.core.units import Unit
from triune.hardware.describe import describe_units
from triune.hardware.facts import UnitFacts
from triune.hardware.figures import Figure
from triune.hardware.measured import load_measured, machine_key, save_measured
from triune.hardware.outputs import read_outputs
from triune.runtimes.versions import runtimes_by_unit


def units() -> Sequence[UnitFacts]:
    """Every compute unit: whether this machine has it, what it is and can do, and why it is absent.

    Imports the libraries of the installed runtimes, to tell their versions.
    """
    found = _described()
    kept = load_measured(_folder(), machine_key(found))
    return with_measured(found, kept.figures, kept.reason)


def measure_units() -> Sequence[UnitFacts]:
    """Measure this machine's rates and bandwidth, keep them, and describe its units with them. Takes about a minute.

    Raises:
        OSError: the cache folder cannot be written to.
        TriuneError: a unit that is present could not run the product.
    """
    # Measuring loads the whole API.
    from triune.api.measuring import measure

    found = _described()
    figures = measure(found)
    save_measured(_folder(), machine_key(found), figures)
    return with_measured(found, figures)


def with_measured(
    units: Sequence[UnitFacts], figures: Mapping[Unit, Mapping[str, Figure]], reason: str = ""
) -> Sequence[UnitFacts]:
    """The units with figures that were measured here, which stand beside those of the table of chips.

    Args:
        units: the units.
        figures: by unit and name; a name that a unit has already gets "_here".
        reason: why there are no figures, which missing ones then name; "" if there are.
    """
    bandwidth = {name: figure for name, figure in figures.get(Unit.CPU, {}).items() if name.startswith("memory_")}
    return [
        _with(each, {**(bandwidth if each.is_memory_shared else {}), **figures.get(each.unit, {})}, reason)
        for each in units
    ]


_MEASURE: Final = "triune units --measure"
"""What reasons name, where measuring helps."""


def _with(facts: UnitFacts, figures: Mapping[str, Figure], reason: str) -> UnitFacts:
    named = {f"{name}_here" if name in facts.figures else name: figure for name, figure in figures.items()}
    unavailable = {
        name: f"{why}: {reason}" if reason and _MEASURE in why else why
        for name, why in facts.unavailable.items()
        if name not in figures
    }
    return dataclasses.replace(facts, figures={**facts.figures, **named}, unavailable=unavailable)


def _described() -> Sequence[UnitFacts]:
    found = describe_units(read_outputs())
    runtimes = runtimes_by_unit([each.status for each in found])
    return [dataclasses.replace(each, runtimes=runtimes[each.unit]) for each in found]


def _folder() -> Path:
    return cache_folder() / "units"
