"""How fast a model file is on the units at hand, and how many joules it takes."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from triune.api.models import UnitModel, load
from triune.core.clock import MonotonicClock
from triune.core.datatypes import Array
from triune.core.errors import TriuneError
from triune.core.units import Presence, Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.energy.detect import this_machines_meter
from triune.hardware.energy.meter import EnergyMeter, RailRole
from triune.runtimes.machine import this_machine

_BATCH: Final = 8
_SECONDS: Final = 1.0
_FEWEST_RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured of a model on a unit.

    Attributes:
        unit: the unit.
        latency_ms: the median time of a call with one sample; None if it does not run there.
        rows_per_second: with calls of `batch` samples at once.
        batch: the samples of such a call; 1 if the model takes no more.
        joules_per_row: of the same calls; None if no meter counts them.
        unavailable: why there are no times, or no joules; "" if there are both.
    """

    unit: Unit
    latency_ms: float | None
    rows_per_second: float | None
    batch: int
    joules_per_row: float | None
    unavailable: str


def units_here() -> Sequence[Unit]:
    """The units of this machine that are present, and not emulated."""
    return [each.unit for each in this_machine().units if each.presence is Presence.PRESENT]


def speed_of(path: Path, unit: Unit, sample: Mapping[str, Array]) -> Speed:
    """Measure a model for a few seconds. Other work on the machine makes it slower.

    Args:
        path: the model.
        unit: where to run it.
        sample: its inputs, for one call.
    """
    try:
        with load(path, unit.value) as model:
            return _measured(model, unit, sample)
    except TriuneError as error:
        return Speed(unit, None, None, 1, None, str(error))


def _measured(model: UnitModel, unit: Unit, sample: Mapping[str, Array]) -> Speed:
    times, _ = _times(model, sample)
    many = {name: np.repeat(array, _BATCH, axis=0) if array.ndim else array for name, array in sample.items()}
    batch = _BATCH
    try:
        model.run(many)
    except TriuneError:
        # A model of a fixed batch size.
        many, batch = dict(sample), 1
    meter = this_machines_meter(this_machine().units, read_cpu().name, MonotonicClock())
    try:
        before = meter.read()
        several, seconds = _times(model, many)
        after = meter.read()
        joules, why = _joules(meter, unit, before.joules, after.joules, after.unavailable)
    finally:
        meter.close()
    rows = batch * len(several)
    per_row = None if joules is None else joules / rows
    return Speed(unit, 1e3 * statistics.median(times), rows / seconds, batch, per_row, why)


def _times(model: UnitModel, inputs: Mapping[str, Array]) -> tuple[list[float], float]:
    """The seconds of each of many calls, and of all of them together."""
    model.run(inputs)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < _FEWEST_RUNS or time.perf_counter() - started < _SECONDS:
        begin = time.perf_counter()
        model.run(inputs)
        times.append(time.perf_counter() - begin)
    return times, time.perf_counter() - started


def _joules(
    meter: EnergyMeter,
    unit: Unit,
    before: Mapping[str, float],
    after: Mapping[str, float],
    unavailable: Mapping[str, str],
) -> tuple[float | None, str]:
    rails = [rail for rail in meter.rails if unit in rail.units and rail.role is RailRole.COMPUTE]
    for rail in rails:
        if rail.name not in before or rail.name not in after:
            return None, unavailable.get(rail.name, f"rail '{rail.name}' could not be read")
    if not rails:
        return None, "no meter counts this unit's energy here"
    return sum(after[rail.name] - before[rail.name] for rail in rails), ""
