"""Data of the machine for the page: each unit's counts and power, and the server's power mode."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from triune.core.power import Power
from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.energy.ledger import EnergyLedger, RailStatus
from triune.hardware.energy.meter import RailRole
from triune.scheduling.models import LoadedVersion

Json: TypeAlias = dict[str, Any]

_NS: Final = 1e9
NOT_METERED: Final = "the server does not meter energy (--energy-interval-ms 0)"


@dataclass(frozen=True, slots=True)
class PageMachine:
    """The parts of the machine that the page shows.

    Attributes:
        units: its units.
        power: the power mode.
        ledger: the readings of its energy meters; None if energy is not metered.
    """

    units: Sequence[UnitStatus]
    power: Power
    ledger: EnergyLedger | None = None


def describe_machine(machine: PageMachine, loaded: Iterable[LoadedVersion]) -> Json:
    """Describe the machine's units, and the power mode, as JSON.

    Args:
        machine: the machine.
        loaded: the loaded versions, whose counts are added up by unit.
    """
    versions = list(loaded)
    rails = machine.ledger.rails if machine.ledger is not None else ()
    return {
        "power": {"mode": machine.power.mode.value, "reason": machine.power.reason},
        "units": [_unit(status, machine, versions, rails) for status in machine.units],
    }


def _unit(
    status: UnitStatus, machine: PageMachine, versions: Sequence[LoadedVersion], rails: Sequence[RailStatus]
) -> Json:
    unit = status.unit
    served = [each.statistics for each in versions if unit in each.precisions]
    found: Json = {
        "unit": unit.value,
        "presence": status.presence.value,
        "description": status.description or status.reason,
        "models": len(served),
        "inferences": sum(each.unit_inferences.get(unit, 0) for each in served),
        "busy_seconds": sum(each.unit_busy_ns.get(unit, 0) for each in served) / _NS,
        # Count a waiting request for each unit of its model, since it may go to any of them.
        "waiting": sum(each.num_waiting for each in served),
        "slowed": sum(unit in each.slowed for each in served),
        "lost": next((each.lost[unit] for each in served if unit in each.lost), ""),
        "hot": machine.power.hot.get(unit, ""),
    }
    return found if status.presence is not Presence.PRESENT else {**found, "power": _power(unit, machine, rails)}


def _power(unit: Unit, machine: PageMachine, rails: Sequence[RailStatus]) -> Mapping[str, Any]:
    """The watts of a unit's rails, with the units that share them; or why they are unavailable."""
    if machine.ledger is None:
        return {"kind": "unavailable", "reason": NOT_METERED}
    own = [each for each in rails if unit in each.rail.units and each.rail.role is RailRole.COMPUTE]
    known = [each.totals.watts for each in own if each.totals.watts is not None]
    if not known or len(known) < len(own):
        reason = machine.ledger.why_unavailable(unit) or "its meter was not read twice yet"
        return {"kind": "unavailable", "reason": reason}
    shared = sorted({other.value for each in own for other in each.rail.units if other is not unit})
    return {"kind": own[0].rail.kind.value, "watts": sum(known), "shared_with": shared}
