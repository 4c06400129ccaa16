"""This machine as the target of plans, by the peaks that `triune units --measure` measured on it."""

import math
from collections.abc import Sequence
from dataclasses import replace

from triune.core.errors import UnsupportedError
from triune.core.units import Presence, Unit
from triune.hardware.chips import chips, find_chip
from triune.hardware.facts import UnitFacts
from triune.hardware.figures import Figure, FigureKind
from triune.hardware.rules import NEWEST_TIER
from triune.planning.constants import Constants
from triune.planning.cost import Rates
from triune.planning.op import OpClass
from triune.planning.units import PlannedUnit, Target, cpu_like_rates, target_of

_MEASURED_SIZE = 2048
"""The rows and columns of the products by which rates are measured (`api.measuring`)."""


def target_here(units: Sequence[UnitFacts], constants: Constants) -> Target:
    """Make a target of this machine: one of Apple's chips, corrected by measurements on this machine, or another
    machine with measured peaks.

    Args:
        units: the units of this machine, with their measurements.
        constants: the fitted constants.

    Raises:
        UnsupportedError: the machine is not one of Apple's chips, and no unit was measured.
    """
    name = next((each.name for each in units if each.unit is Unit.CPU), "") or "this machine"
    chip = find_chip(name)
    if chip is not None:
        target = target_of(chip, constants)
        corrected = {unit: _corrected(each, _rate(units, unit)) for unit, each in target.units.items()}
        return replace(target, units=corrected)
    found = {
        each.unit: _measured_unit(each, rate, bandwidth, constants)
        for each in units
        if (rate := _rate(units, each.unit)) is not None and (bandwidth := _bandwidth(each)) is not None
    }
    if not found:
        raise UnsupportedError(
            f"{name} is not one of Apple's chips, and the peaks of its units are not measured: `triune units "
            f"--measure` does that in a minute; or name a chip (--chip): {', '.join(each.name for each in chips())}"
        )
    memory = next((each.memory_bytes for each in units if each.unit is Unit.CPU), None)
    lost = [each.unit.value for each in units if each.unit not in found]
    notes = [
        "no published measurement tells how well times are predicted on this machine: its peaks were measured here, "
        "the rest of the cost model is fitted to Apple's chips",
        *([f"not planned for, since they are absent, emulated or not measured: {', '.join(lost)}"] if lost else []),
    ]
    bandwidths = [value for each in units if (value := _bandwidth(each)) is not None]
    return Target(
        name,
        found,
        NEWEST_TIER,
        max(bandwidths),
        memory / 2**30 if memory else None,
        is_scored=False,
        notes=tuple(notes),
    )


def _rate(units: Sequence[UnitFacts], unit: Unit) -> Figure | None:
    """The highest rate of matrix products that was measured on a unit of this machine, if the unit is present."""
    figures = [
        figure
        for each in units
        if each.unit is unit and each.presence is Presence.PRESENT
        for key, figure in each.figures.items()
        if key.startswith("matmul_") and figure.kind is FigureKind.MEASURED and "here" in figure.source
    ]
    return max(figures, key=lambda figure: figure.value, default=None)


def _bandwidth(facts: UnitFacts) -> float | None:
    found = [
        figure.value
        for key, figure in facts.figures.items()
        if key.startswith("memory_gb_per_s") and figure.kind is FigureKind.MEASURED
    ]
    return max(found, default=None)


def _corrected(unit: PlannedUnit, rate: Figure | None) -> PlannedUnit:
    """Correct a unit's peak so that the predicted time of the measured products is the measured time."""
    if rate is None:
        return unit
    return replace(unit, rates=_with_peak(unit.rates, rate), notes=(*unit.notes, _note(unit.unit, rate)))


def _measured_unit(facts: UnitFacts, rate: Figure, bandwidth: float, constants: Constants) -> PlannedUnit:
    curve = "gpu" if facts.unit is Unit.GPU else "cpu"
    bits = 32 if rate.basis == "fp32" else 16
    rates = cpu_like_rates(constants, curve, tflops=rate.value, gb_per_s=bandwidth, element_bytes=bits / 8)
    # The unit's power is unknown, so no energy is predicted.
    rates = replace(rates, watts=math.nan)
    return PlannedUnit(facts.unit, _with_peak(rates, rate), (_note(facts.unit, rate),))


def _with_peak(rates: Rates, rate: Figure) -> Rates:
    reached = rates.efficiency.get(OpClass.MATMUL, 1.0)
    for half in (rates.half_rows, rates.half_columns):
        reached *= _MEASURED_SIZE / (_MEASURED_SIZE + half)
    return replace(rates, tflops=rate.value / reached)


def _note(unit: Unit, rate: Figure) -> str:
    return f"the peak of {unit.value} is {rate.source}: {rate.value:.3g} {rate.unit} in {rate.basis}"
