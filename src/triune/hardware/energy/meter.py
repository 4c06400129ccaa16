"""The EnergyMeter protocol: cumulative joules of a machine's rails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from triune.core.energy import EnergyKind
from triune.core.units import Unit


class RailRole(Enum):
    """The part of a unit's energy that a rail measures."""

    COMPUTE = "compute"
    """The compute logic of the unit. Without this rail, the unit's joules are unavailable."""
    MEMORY = "memory"
    """The memory that the units use. Its joules are counted in addition to the units'."""
    DETAIL = "detail"
    """A part of the hardware whose joules are, or may be, contained in those of another rail. They are shown, and not
    charged."""


@dataclass(frozen=True, slots=True)
class Rail:
    """A part of a machine with its own energy counter.

    Attributes:
        name: unique on the machine, such as "package-0" or "gpu-0".
        units: the units that draw power from it.
        role: the part of the units' energy that it measures.
        kind: whether the joules are measured or estimated.
        source: the source of the joules, as a text for users.
        is_load_only: whether the joules assume a unit under full load. If so, only computing time is charged, and the
            energy of idle times is unknown.
    """

    name: str
    units: frozenset[Unit]
    role: RailRole
    kind: EnergyKind
    source: str
    is_load_only: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a meter. Each rail is either in `joules` or in `unavailable`.

    Attributes:
        time_ns: the time of the reading, on the meter's clock.
        joules: the joules since an arbitrary start, by the rail's name. They never decrease.
        unavailable: the reason for each rail that cannot be read, by the rail's name.
    """

    time_ns: int
    joules: Mapping[str, float]
    unavailable: Mapping[str, str]


class EnergyMeter(Protocol):
    """Counts the energy of some rails. Only one thread at a time may use it. `close` frees its resources.

    A rail can become unavailable at any reading, and come back. The energy of the time between is unknown, and is not
    counted.
    """

    @property
    def rails(self) -> Sequence[Rail]:
        """The rails, including unavailable ones. They never change."""
        ...

    @property
    def resolution_seconds(self) -> float:
        """The interval in seconds at which the counters are updated. Readings closer together show no difference."""
        ...

    def read(self) -> Reading:
        """Read all rails. Never raises: a rail that fails is unavailable, with the reason."""
        ...

    def close(self) -> None:
        """Free everything. Later readings have no rail available. A second `close` does nothing."""
        ...


CLOSED = "the meter is closed"
"""Why no rail of a closed meter is available."""


class CumulativeCounter:
    """The joules of a counter that wraps around at its range, or restarts, and that may be lost for a while."""

    def __init__(self, joules_per_count: float, counts: int | None = None) -> None:
        """Args:
        joules_per_count: the joules of one count.
        counts: the number of values after which the counter wraps around to 0; None if it never wraps. If such a
            counter decreases, it was restarted: the energy between the two readings is unknown, and not counted.
        """
        self._joules_per_count = joules_per_count
        self._counts = counts
        self._last: int | None = None
        self._joules = 0.0

    def read(self, count: int) -> float:
        """Record the counter's value, and return the joules since the first value."""
        if self._last is not None:
            grown = count - self._last
            if grown < 0:
                grown = grown % self._counts if self._counts else 0
            self._joules += grown * self._joules_per_count
        self._last = count
        return self._joules

    def lose(self) -> None:
        """Record that the counter could not be read: counting goes on with its next value."""
        self._last = None
