"""Two meters: one combines several meters, and one stands for units whose energy cannot be read."""

from collections.abc import Mapping, Sequence

from triune.core.clock import Clock
from triune.core.energy import EnergyKind
from triune.core.units import Unit
from triune.hardware.energy.meter import CLOSED, EnergyMeter, Rail, RailRole, Reading


class CombinedMeter:
    """A meter with the rails of several meters."""

    def __init__(self, meters: Sequence[EnergyMeter], clock: Clock) -> None:
        """Args:
        meters: the meters, which `close` closes. No two of them have a rail of the same name.
        clock: the clock of the readings, and of all meters.
        """
        self._meters = tuple(meters)
        self._clock = clock
        self.rails = tuple(rail for meter in meters for rail in meter.rails)
        self.resolution_seconds = max((meter.resolution_seconds for meter in meters), default=0.0)

    def read(self) -> Reading:
        """Implements `EnergyMeter.read`."""
        now_ns = self._clock.now_ns()
        readings = [meter.read() for meter in self._meters]
        joules = {name: value for reading in readings for name, value in reading.joules.items()}
        unavailable = {name: reason for reading in readings for name, reason in reading.unavailable.items()}
        return Reading(now_ns, joules, unavailable)

    def close(self) -> None:
        """Implements `EnergyMeter.close`."""
        for meter in self._meters:
            meter.close()


class AbsentMeter:
    """A meter that only says for each unit why its energy is unavailable."""

    resolution_seconds = 0.0

    def __init__(self, reasons: Mapping[Unit, str], clock: Clock) -> None:
        """Args:
        reasons: for each unit why its energy is unavailable, and the remedy.
        clock: the clock of the readings.
        """
        self._clock = clock
        self._reasons = {f"{unit.value}-unmetered": reason for unit, reason in reasons.items()}
        self.rails = tuple(
            Rail(f"{unit.value}-unmetered", frozenset({unit}), RailRole.COMPUTE, EnergyKind.MEASURED, "no meter")
            for unit in reasons
        )

    def read(self) -> Reading:
        """Implements `EnergyMeter.read`."""
        return Reading(self._clock.now_ns(), {}, dict(self._reasons))

    def close(self) -> None:
        """Implements `EnergyMeter.close`."""
        self._reasons = dict.fromkeys(self._reasons, CLOSED)
