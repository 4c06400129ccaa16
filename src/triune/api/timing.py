"""Measures the speed and energy of a model file on the units of this machine."""

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from triune.api.models import UnitModel, load
from triune.core.clock import MonotonicClock
from triune.core.datatypes import Array
from triune.core.errors import TriuneError
from triune.core.units import Presence, Unit
from triune.graph.custom import NO_CUSTOM_OPS, CustomOps
from triune.hardware.cpu import read_cpu
from triune.hardware.energy.detect import this_machines_meter
from triune.hardware.energy.meter import EnergyMeter, RailRole
from triune.runtimes.machine import this_machine

_BATCH: Final = 8
_SECONDS: Final = 1.0
_FEWEST_RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class Speed:
    """The measured speed of a model on a unit.

    Attributes:
        unit: the unit.
        latency_ms: the median time of a call with one sample; None if the model does not run on the unit.
        rows_per_second: the rate with calls of `batch` samples at once, from the median time.
        batch: the number of samples in such a call; 1 if the model does not accept more.
        joules_per_row: the joules per row in these calls; None if there is no meter.
        unavailable: why there are no times, or no joules; "" if there are both.
        outputs: the results for the sample; empty if the model does not run on the unit.
    """

    unit: Unit
    latency_ms: float | None
    rows_per_second: float | None
    batch: int
    joules_per_row: float | None
    unavailable: str
    outputs: Mapping[str, Array] = field(default_factory=dict[str, Array])


def units_here() -> Sequence[Unit]:
    """The units of this machine that are present, and not emulated."""
    return [each.unit for each in this_machine().units if each.presence is Presence.PRESENT]


def speeds_of(
    paths: Sequence[Path], unit: Unit, sample: Mapping[str, Array], ops: CustomOps = NO_CUSTOM_OPS
) -> Sequence[Speed]:
    """Measure models on a unit for some seconds. They are called alternately, so that other work on the machine
    slows down all of them.

    Args:
        paths: the models, which take the same inputs.
        unit: the unit to run them on.
        sample: the inputs of one call.
        ops: the models' custom operators.
    """
    with ExitStack() as stack:
        loaded: dict[Path, UnitModel] = {}
        failures: dict[Path, str] = {}
        outputs: dict[Path, Mapping[str, Array]] = {}
        for path in paths:
            try:
                loaded[path] = stack.enter_context(
                    load(path, unit.value, custom_ops=(*(ops.files or ops.ops.values()), *ops.libraries))
                )
                outputs[path] = loaded[path].run(sample)
            except TriuneError as error:
                failures[path] = str(error)
        able = {path: model for path, model in loaded.items() if path in outputs}
        single = _times(able, sample)
        many, batch = _batched(able, sample)
        meter = this_machines_meter(this_machine().units, read_cpu().name, MonotonicClock())
        stack.callback(meter.close)
        several = _times(able, many)
        found: list[Speed] = []
        for path in paths:
            if path not in able:
                found.append(Speed(unit, None, None, 1, None, failures[path]))
                continue
            joules, why = _joules_of(meter, unit, able[path], many)
            rows = batch / statistics.median(several[path])
            latency = 1e3 * statistics.median(single[path])
            per_row = None if joules is None else joules / batch
            found.append(Speed(unit, latency, rows, batch, per_row, why, outputs[path]))
        return found


def _batched(models: Mapping[Path, UnitModel], sample: Mapping[str, Array]) -> tuple[Mapping[str, Array], int]:
    """Repeat the sample `_BATCH` times in one batch. Returns the batch and `_BATCH`, or the sample and 1 if a model
    does not accept the batch.
    """
    many = {name: np.repeat(array, _BATCH, axis=0) if array.ndim else array for name, array in sample.items()}
    try:
        for model in models.values():
            model.run(many)
    except TriuneError:
        return sample, 1
    return many, _BATCH


def _times(models: Mapping[Path, UnitModel], inputs: Mapping[str, Array]) -> Mapping[Path, Sequence[float]]:
    """Time many calls of each model. Returns the seconds of each call, by model."""
    times: dict[Path, list[float]] = {path: [] for path in models}
    started = time.perf_counter()
    while models and (
        time.perf_counter() - started < _SECONDS * len(models)
        or any(len(each) < _FEWEST_RUNS for each in times.values())
    ):
        for path, model in models.items():
            begin = time.perf_counter()
            model.run(inputs)
            times[path].append(time.perf_counter() - begin)
    return times


def _joules_of(
    meter: EnergyMeter, unit: Unit, model: UnitModel, inputs: Mapping[str, Array]
) -> tuple[float | None, str]:
    """Measure the joules of a call. Returns (joules, ""), or (None, the reason why they are unknown)."""
    before = meter.read()
    if not any(unit in rail.units and rail.role is RailRole.COMPUTE for rail in meter.rails) or before.unavailable:
        return _joules(meter, unit, before.joules, before.joules, before.unavailable)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        model.run(inputs)
        count += 1
    after = meter.read()
    joules, why = _joules(meter, unit, before.joules, after.joules, after.unavailable)
    return None if joules is None else joules / count, why


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
