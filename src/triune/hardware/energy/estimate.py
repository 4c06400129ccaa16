"""Estimates of energy: a unit's power under load, from a table, times the time that it computed."""

from collections.abc import Sequence
from dataclasses import dataclass

from triune.core.clock import Clock
from triune.core.energy import EnergyKind
from triune.core.units import Unit
from triune.hardware.energy.meter import CLOSED, Rail, RailRole, Reading


@dataclass(frozen=True, slots=True)
class LoadPower:
    """The power under load of a part of a machine.

    Attributes:
        name: the part, such as "ane".
        units: the units that draw this power.
        watts: the power, above 0.
        source: the source of the figure, and how it was determined.
    """

    name: str
    units: frozenset[Unit]
    watts: float
    source: str


class EstimatedMeter:
    """A meter that counts joules as if each unit were under load all the time. Its rails have `Rail.is_load_only`, so
    only the time in which a unit computes is charged.
    """

    resolution_seconds = 0.0

    def __init__(self, powers: Sequence[LoadPower], clock: Clock) -> None:
        """Args:
        powers: the parts whose power is known.
        clock: the clock of the readings.
        """
        self._clock = clock
        self._watts = {f"{power.name}-estimate": power.watts for power in powers}
        self._started_ns = clock.now_ns()
        self._is_closed = False
        self.rails = tuple(
            Rail(
                f"{power.name}-estimate",
                power.units,
                RailRole.COMPUTE,
                EnergyKind.ESTIMATED,
                f"{power.watts:g} W under load: {power.source}",
                is_load_only=True,
            )
            for power in powers
        )

    def read(self) -> Reading:
        """Implements `EnergyMeter.read`."""
        now_ns = self._clock.now_ns()
        if self._is_closed:
            return Reading(now_ns, {}, {rail.name: CLOSED for rail in self.rails})
        seconds = (now_ns - self._started_ns) / 1e9
        return Reading(now_ns, {name: watts * seconds for name, watts in self._watts.items()}, {})

    def close(self) -> None:
        """Implements `EnergyMeter.close`."""
        self._is_closed = True
