"""The placements of loaded models as JSON: the requested, the planned and the observed units."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

from triune.core.placement import PlacedSegment
from triune.core.units import Unit
from triune.scheduling.models import LoadedVersion

Json: TypeAlias = dict[str, Any]


def placements(models: Sequence[LoadedVersion]) -> Json:
    """The placements of versions as JSON. If a version's backend reports no placement, only the version's units are
    listed.
    """
    return {"placements": [placement(each) for each in models]}


def placement(model: LoadedVersion) -> Json:
    """The placement of a version as JSON, with the statistics of its units since it was loaded."""
    known, counted = model.placement, model.statistics
    is_cut = known is not None and known.is_cut
    segments = known.segments if known is not None else [_bare(unit, text) for unit, text in model.precisions.items()]
    rows: list[Json] = []
    for number, each in enumerate(segments):
        row = segment_json(each, is_emulated=each.unit in model.emulated)
        if is_cut:
            ran = counted.segments.get(number)
            row["observed"] |= {"executions": ran.count if ran else 0, "busy_ms": ran.total_ns / 1e6 if ran else 0.0}
        rows.append(row)
    return {
        "name": model.config.name,
        "version": str(model.version),
        "requested": known.requested if known is not None else ",".join(unit.value for unit in model.config.units),
        "cut": is_cut,
        "segments": rows,
        "units": [_unit(unit, model) for unit in model.config.units],
        "notes": list(known.notes) if known is not None else [],
    }


def energy_of(model: LoadedVersion) -> list[Json]:
    """The joules of a version on each unit, by phase and kind; or why they are unavailable."""
    energy: list[Json] = []
    for account in model.statistics.accounts.values():
        unit = {"unit": account.unit.value}
        energy += (
            {**unit, "phase": phase.value, "kind": kind.value, "joules": joules}
            for (phase, kind), joules in account.totals().items()
        )
        if reason := account.why_unavailable():
            energy.append({**unit, "kind": "unavailable", "reason": reason})
    return energy


def _bare(unit: Unit, precision: str) -> PlacedSegment:
    return PlacedSegment(unit, "", precision)


def segment_json(each: PlacedSegment, *, is_emulated: bool | None) -> Json:
    """A segment as JSON. `is_emulated` is None if it is not known."""
    return {
        "operations": each.num_ops,
        "first": each.first,
        "last": each.last,
        "requested": _name(each.requested),
        "planned": _name(each.planned),
        "predicted_ms": each.predicted_ms,
        "observed": {
            "unit": each.unit.value,
            "emulated": is_emulated,
            "runtime": each.runtime,
            "precision": each.precision,
            "report": each.report,
            "sample_ms": each.measured_ms,
            # JSON has no number for an infinite error.
            "error": each.error if each.error is not None and math.isfinite(each.error) else None,
            "passed_bytes": each.passed_bytes,
        },
        "notes": list(each.notes),
    }


def _unit(unit: Unit, model: LoadedVersion) -> Json:
    counted = model.statistics
    return {
        "unit": unit.value,
        "emulated": unit in model.emulated,
        "rows": counted.unit_inferences.get(unit, 0),
        "busy_ms": counted.unit_busy_ns.get(unit, 0) / 1e6,
        "energy": [
            {name: value for name, value in each.items() if name != "unit"}
            for each in energy_of(model)
            if each["unit"] == unit.value
        ],
    }


def _name(unit: Unit | None) -> str | None:
    return unit.value if unit is not None else None
