"""A meter whose joules are set by its caller: the reference implementation, for tests."""

from collections.abc import Sequence

from triune.core.clock import Clock
from triune.hardware.energy.meter import CLOSED, Rail, Reading


class HandMeter:
    """A meter that counts the joules that `feed` is called with."""

    def __init__(self, rails: Sequence[Rail], clock: Clock, resolution_seconds: float = 0.0) -> None:
        """Args:
        rails: the meter's rails, all available at first.
        clock: the clock of the readings.
        resolution_seconds: see `EnergyMeter`.
        """
        self.rails = tuple(rails)
        self.resolution_seconds = resolution_seconds
        self._clock = clock
        self._joules = {rail.name: 0.0 for rail in rails}
        self._lost: dict[str, str] = {}

    def feed(self, rail: str, joules: float) -> None:
        """Count `joules`, at least 0, on a rail. A rail that was lost does not count them."""
        if rail not in self._lost:
            self._joules[rail] += joules

    def lose(self, rail: str, reason: str) -> None:
        """Make a rail unavailable."""
        self._lost[rail] = reason

    def find(self, rail: str) -> None:
        """Make a rail available again."""
        del self._lost[rail]

    def read(self) -> Reading:
        """Implements `EnergyMeter.read`."""
        joules = {name: value for name, value in self._joules.items() if name not in self._lost}
        return Reading(self._clock.now_ns(), joules, dict(self._lost))

    def close(self) -> None:
        """Implements `EnergyMeter.close`."""
        self._lost = {rail.name: CLOSED for rail in self.rails}
