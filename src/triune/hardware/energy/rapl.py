"""The energy counters of x86 CPUs on Linux (RAPL), through the kernel's power capping framework.

Sources: the kernel's documentation, `power/powercap/powercap.html`; since CVE-2020-8694 only root may read the
counters.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from triune.core.clock import Clock
from triune.core.energy import EnergyKind
from triune.core.units import Unit
from triune.hardware.energy.meter import CLOSED, CumulativeCounter, Rail, RailRole, Reading

POWERCAP: Final = Path("/sys/class/powercap")
"""The folder in which the kernel lists power zones."""

_ROLES: Final = {"package": RailRole.COMPUTE, "dram": RailRole.MEMORY}
"""The roles of power zones, by the beginning of the zone's name. Other zones are only shown: `core` and `uncore` are
parts of a package, and `psys` contains all packages.
"""

_UNITS: Final = frozenset({Unit.CPU, Unit.AMX})


@dataclass(slots=True)
class _Zone:
    rail: Rail
    file: Path
    counter: CumulativeCounter


class RaplMeter:
    """Counts each package, its cores and its memory, where the CPU has a counter for them."""

    resolution_seconds = 0.01
    """Readings that are 10 ms apart differ: the counters are updated about every millisecond."""

    def __init__(self, clock: Clock, root: Path = POWERCAP) -> None:
        """Args:
        clock: the clock of the readings.
        root: the folder of power zones. If it does not exist, there are no rails.
        """
        self._clock = clock
        self._zones = list(_zones(root))
        self._is_closed = False

    @property
    def rails(self) -> Sequence[Rail]:
        """Implements `EnergyMeter.rails`."""
        return tuple(zone.rail for zone in self._zones)

    def read(self) -> Reading:
        """Implements `EnergyMeter.read`. Takes some tens of microseconds."""
        if self._is_closed:
            return Reading(self._clock.now_ns(), {}, {rail.name: CLOSED for rail in self.rails})
        now_ns = self._clock.now_ns()
        joules: dict[str, float] = {}
        unavailable: dict[str, str] = {}
        for zone in self._zones:
            try:
                joules[zone.rail.name] = zone.counter.read(int(zone.file.read_text()))
            except (OSError, ValueError) as error:
                zone.counter.lose()
                unavailable[zone.rail.name] = _reason(zone.file, error)
        return Reading(now_ns, joules, unavailable)

    def close(self) -> None:
        """Implements `EnergyMeter.close`."""
        self._is_closed = True


def _zones(root: Path) -> Iterator[_Zone]:
    # All zones lie side by side: `intel-rapl:0` is a package, `intel-rapl:0:1` a part of it. AMD's have the same names.
    # `intel-rapl-mmio:*` counts the same packages once more.
    for folder in sorted(root.glob("intel-rapl:*"), key=lambda each: _numbers(each.name)):
        try:
            name = (folder / "name").read_text().strip()
            counts = int((folder / "max_energy_range_uj").read_text()) + 1
        except (OSError, ValueError):
            # Leave out a counter whose range is unknown: after a wrap-around its joules could not be computed.
            continue
        place = _numbers(folder.name)
        if len(place) > 1:
            name = f"{name}-{place[0]}"
        role = _ROLES.get(name.split("-")[0], RailRole.DETAIL)
        rail = Rail(name, _UNITS, role, EnergyKind.MEASURED, f"RAPL, {folder.name}")
        yield _Zone(rail, folder / "energy_uj", CumulativeCounter(1e-6, counts))


def _numbers(name: str) -> tuple[int, ...]:
    """The numbers in a zone's name: (0, 1) for "intel-rapl:0:1"."""
    return tuple(int(each) for each in name.split(":")[1:] if each.isdigit())


def _reason(file: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return (
            f"only root may read {file}: allow the server's user by `sudo chmod a+r "
            f"{file.parent.parent}/intel-rapl:*/energy_uj`, after each start of the system"
        )
    if isinstance(error, OSError):
        return f"{file} cannot be read any more: {os.strerror(error.errno) if error.errno else error}"
    return f"{file} holds no whole number"
