"""The energy of Apple's chips, read through IOReport by the package `zeus-apple-silicon`, without root.

Apple says of such figures that they "are estimated and may be inaccurate" (powermetrics' manual): they come from a
model of the chip. Here they count as measured, since they are the system's own counters.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from triune.core.clock import Clock
from triune.core.energy import EnergyKind
from triune.core.units import Unit
from triune.hardware.energy.meter import CLOSED, CumulativeCounter, Rail, RailRole, Reading


class AppleEnergyMetrics(Protocol):
    """The fields of `zeus_apple_silicon.AppleEnergyMetrics` that are read here, in millijoules; None for a part that
    the chip does not report.
    """

    cpu_total_mj: int | None
    gpu_mj: int | None
    gpu_sram_mj: int | None
    ane_mj: int | None
    dram_mj: int | None


class AppleEnergyMonitor(Protocol):
    """The methods of `zeus_apple_silicon.AppleEnergyMonitor` that are called here."""

    def get_cumulative_energy(self) -> AppleEnergyMetrics:
        """The energy since a fixed time. Raises RuntimeError, or ValueError if the library does not know in which unit
        the chip reports energy.
        """
        ...


class ZeusAppleSilicon(Protocol):
    """The members of the module `zeus_apple_silicon` that are used here."""

    def AppleEnergyMonitor(self) -> AppleEnergyMonitor:  # noqa: N802 - the library's name
        """Subscribe to the counters. Raises RuntimeError."""
        ...


_ALL: Final = frozenset(Unit)

_FIELDS: Final[Sequence[tuple[str, str, frozenset[Unit], RailRole]]] = (
    ("cpu", "cpu_total_mj", frozenset({Unit.CPU, Unit.AMX}), RailRole.COMPUTE),
    ("gpu", "gpu_mj", frozenset({Unit.GPU}), RailRole.COMPUTE),
    ("ane", "ane_mj", frozenset({Unit.ANE}), RailRole.COMPUTE),
    ("dram", "dram_mj", _ALL, RailRole.MEMORY),
    # The SRAM's energy is only shown, and not added to the GPU's: it is not documented whether that includes it.
    ("gpu-sram", "gpu_sram_mj", frozenset({Unit.GPU}), RailRole.DETAIL),
)

_ONE_OF_TWO: Final = frozenset({"cpu", "gpu"})
"""The rails for which zeus-apple-silicon 1.1.0 reads only one channel of IOReport. An Ultra chip has a channel for each
of its two dies ("DIE_0_CPU Energy"), so the library may report half of the energy: these rails are unavailable there.
"""


class IOReportMeter:
    """Counts CPU, GPU, Neural Engine and memory, where the chip has a rail for them."""

    resolution_seconds = 0.01
    """The counters have whole millijoules; within 10 ms a busy unit uses some tens of them."""

    def __init__(self, library: ZeusAppleSilicon, clock: Clock, chip: str) -> None:
        """Args:
        library: the module `zeus_apple_silicon`.
        clock: the clock of the readings.
        chip: the chip's name, such as "Apple M2 Ultra".
        """
        self._clock = clock
        self._has_two_dies = chip.endswith(" Ultra")
        self._counters = {name: CumulativeCounter(1e-3) for name, *_ in _FIELDS}
        self._reason = ""
        self._monitor: AppleEnergyMonitor | None = None
        try:
            self._monitor = library.AppleEnergyMonitor()
        except RuntimeError as error:
            self._reason = f"IOReport gives no energy: {error}"
        self.rails = tuple(
            Rail(name, units, role, EnergyKind.MEASURED, "IOReport, Apple's model of the chip")
            for name, _, units, role in _FIELDS
        )

    def read(self) -> Reading:
        """Implements `EnergyMeter.read`."""
        now_ns = self._clock.now_ns()
        if self._monitor is None:
            return self._none(now_ns, self._reason)
        try:
            metrics = self._monitor.get_cumulative_energy()
        except (RuntimeError, ValueError) as error:
            for counter in self._counters.values():
                counter.lose()
            return self._none(now_ns, f"IOReport cannot be read: {error}")
        joules: dict[str, float] = {}
        unavailable: dict[str, str] = {}
        for name, field, _, _ in _FIELDS:
            value: int | None = getattr(metrics, field)
            if value is None:
                self._counters[name].lose()
                unavailable[name] = f"this system has no counter for {name}: newer ones lack some that older ones have"
            elif self._has_two_dies and name in _ONE_OF_TWO:
                unavailable[name] = f"zeus-apple-silicon reads {name} of one of this chip's two dies"
            else:
                joules[name] = self._counters[name].read(value)
        return Reading(now_ns, joules, unavailable)

    def close(self) -> None:
        """Implements `EnergyMeter.close`."""
        self._monitor, self._reason = None, CLOSED

    def _none(self, now_ns: int, reason: str) -> Reading:
        return Reading(now_ns, {}, {rail.name: reason for rail in self.rails})
