"""The placement of a model for the page: requested, planned and observed units, and the joules of each unit."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from triune.core.placement import PlacedSegment
from triune.core.units import Unit
from triune.frontends.playground.machine import NOT_METERED
from triune.scheduling.models import LoadedVersion

Json: TypeAlias = dict[str, Any]

_NS: Final = 1e9


def places(version: LoadedVersion) -> Json:
    """The segments of a version that is cut, or the units of any other version, with their counts since the load."""
    known, counted = version.placement, version.statistics
    is_cut = known is not None and known.is_cut
    segments = known.segments if known is not None else [_bare(*each) for each in version.precisions.items()]
    rows: list[Json] = []
    for number, each in enumerate(segments):
        row = _segment(each, version)
        if is_cut:
            ran = counted.segments.get(number)
            row["busy_seconds"] = ran.total_ns / _NS if ran else 0.0
        rows.append(row)
    units = ", ".join(unit.value for unit in version.config.units)
    return {
        "requested": known.requested if known is not None else units,
        "is_cut": is_cut,
        "segments": rows,
        "notes": list(known.notes) if known is not None else [],
    }


def joules(version: LoadedVersion, unit: Unit) -> Mapping[str, Any]:
    """The joules of a version on a unit since the load, or why there are none."""
    account = version.statistics.accounts.get(unit)
    reason = NOT_METERED if account is None else account.why_unavailable()
    if account is None or reason:
        return {"kind": "unavailable", "reason": reason}
    totals = account.totals()
    kinds = sorted({kind.value for _, kind in totals})
    return {"kind": ", ".join(kinds), "joules": sum(totals.values())}


def _bare(unit: Unit, precision: str) -> PlacedSegment:
    return PlacedSegment(unit, "", precision)


def _segment(each: PlacedSegment, version: LoadedVersion) -> Json:
    return {
        "requested": each.requested.value if each.requested is not None else "",
        "planned": each.planned.value if each.planned is not None else "",
        "predicted_ms": each.predicted_ms,
        "unit": each.unit.value,
        "is_emulated": each.unit in version.emulated,
        "runtime": each.runtime,
        "precision": each.precision,
        "report": each.report,
        "sample_ms": each.measured_ms,
        "operations": each.num_ops,
        "notes": list(each.notes),
    }
