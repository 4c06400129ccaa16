"""Stand-ins for the sources of energy meters: the kernel's files, NVML, and zeus-apple-silicon."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from triune.core.energy import EnergyKind
from triune.core.units import Unit
from triune.hardware.energy.meter import Rail, RailRole

CPU_UNITS = frozenset({Unit.CPU, Unit.AMX})


def rail(
    name: str,
    units: frozenset[Unit] = CPU_UNITS,
    role: RailRole = RailRole.COMPUTE,
    kind: EnergyKind = EnergyKind.MEASURED,
    *,
    is_load_only: bool = False,
) -> Rail:
    return Rail(name, units, role, kind, "a test", is_load_only)


class Zones:
    """A folder of power zones, as the kernel shows them."""

    RANGE_UJ = 262_143_328_850

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)

    def add(self, folder: str, name: str, uj: int = 0, range_uj: int = RANGE_UJ) -> Path:
        """Add a zone, and return the file of its counter."""
        zone = self.root / folder
        zone.mkdir()
        (zone / "name").write_text(f"{name}\n")
        (zone / "max_energy_range_uj").write_text(f"{range_uj}\n")
        (zone / "energy_uj").write_text(f"{uj}\n")
        return zone / "energy_uj"


class NvmlError(Exception):
    """The stand-in of pynvml.NVMLError."""


@dataclass
class FakeNvml:
    """A stand-in for `pynvml` with one GPU, which has the functions that Triune uses.

    Attributes:
        millijoules: the counter; None for a GPU without one.
        milliwatts: the power.
        failure: the message of the error that every function raises from now on; empty for no error.
    """

    millijoules: int | None = 5_000
    milliwatts: int = 100_000
    failure: str = ""
    num_open: int = 0
    NVMLError = NvmlError

    def _check(self) -> None:
        if self.failure:
            raise NvmlError(self.failure)

    def nvmlInit(self) -> None:
        self._check()
        self.num_open += 1

    def nvmlShutdown(self) -> None:
        self._check()
        self.num_open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        self._check()
        return f"gpu {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self._check()
        return uuid

    def nvmlDeviceGetName(self, handle: str) -> str:
        self._check()
        return f"NVIDIA Test ({handle})"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        self._check()
        if self.millijoules is None:
            raise NvmlError("Not Supported")
        return self.millijoules

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        self._check()
        return self.milliwatts


class AppleEnergyMetrics:
    """The class of zeus-apple-silicon 1.1.0, with all its attributes. Source: its `bindings/energy_bindings.hpp`."""

    def __init__(self) -> None:
        self.cpu_total_mj: int | None = None
        self.efficiency_cores_mj: Sequence[int] | None = None
        self.performance_cores_mj: Sequence[int] | None = None
        self.efficiency_cluster_mj: Sequence[int] | None = None
        self.performance_cluster_mj: Sequence[int] | None = None
        self.efficiency_core_manager_mj: int | None = None
        self.performance_core_manager_mj: int | None = None
        self.dram_mj: int | None = None
        self.gpu_mj: int | None = None
        self.gpu_sram_mj: int | None = None
        self.ane_mj: int | None = None


class FakeZeus:
    """A stand-in for the module `zeus_apple_silicon` with its two classes. Its monitor returns `metrics`.

    Attributes:
        metrics: the metrics that the monitor returns.
        failure: the error that every call raises from now on.
    """

    AppleEnergyMetrics = AppleEnergyMetrics

    def __init__(self, **millijoules: int) -> None:
        self.metrics = AppleEnergyMetrics()
        for name, value in millijoules.items():
            assert hasattr(self.metrics, name)
            setattr(self.metrics, name, value)
        self.failure: Exception | None = None

    def AppleEnergyMonitor(self) -> "FakeZeus":
        self._check()
        return self

    def get_cumulative_energy(self) -> AppleEnergyMetrics:
        self._check()
        return self.metrics

    def begin_window(self, key: str, restart: bool = False) -> None:
        self._check()

    def end_window(self, key: str) -> AppleEnergyMetrics:
        self._check()
        return self.metrics

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
