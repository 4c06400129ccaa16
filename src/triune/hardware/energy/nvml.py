"""The energy of an NVIDIA GPU, through NVML (the package `nvidia-ml-py`)."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from triune.core.clock import Clock
from triune.core.energy import EnergyKind
from triune.core.units import Unit
from triune.hardware.energy.meter import CLOSED, CumulativeCounter, Rail, RailRole, Reading


class Nvml(Protocol):
    """The functions of the module `pynvml` that are used. Each raises `NVMLError`."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name
        """Open the driver."""
        ...

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Close what nvmlInit opened."""
        ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        """The GPU with this index."""
        ...

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:  # noqa: N802
        """The GPU with this UUID, such as "GPU-6a0f...". Unlike CUDA, this function does not accept the beginning of a
        UUID.
        """
        ...

    def nvmlDeviceGetName(self, handle: Any) -> str:  # noqa: N802
        """The name of the GPU's model, such as "NVIDIA H200"."""
        ...

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:  # noqa: N802
        """The energy since the driver was loaded, in millijoules. GPUs have this counter from Volta on."""
        ...

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:  # noqa: N802
        """The power in milliwatts. On newer GPUs it is the mean of the last second."""
        ...


_RAIL: Final = "gpu-0"


class NvmlMeter:
    """Counts the GPU that CUDA programs of this process use: the first one that CUDA_VISIBLE_DEVICES allows.

    If the GPU has no counter of energy, its power is read and integrated over time, so `read` must be called often.
    """

    resolution_seconds = 0.1
    """NVIDIA's counters are updated about every tenth of a second."""

    def __init__(self, library: Nvml, clock: Clock, environment: Mapping[str, str]) -> None:
        """Args:
        library: the module `pynvml`.
        clock: the clock of the readings.
        environment: the environment of this process.
        """
        self._nvml = library
        self._clock = clock
        self._counter = CumulativeCounter(1e-3)
        self._power: tuple[int, float] | None = None
        self._joules = 0.0
        self._handle: Any = None
        self._reason = ""
        self._is_open = False
        source = "NVML"
        try:
            library.nvmlInit()
            self._is_open = True
            self._handle = device(library, environment.get("CUDA_VISIBLE_DEVICES"))
            name = f"{library.nvmlDeviceGetName(self._handle)}, NVML's"
            self._has_counter = self._can_count()
            source = f"{name} counter of energy" if self._has_counter else f"{name} power, read and integrated"
        except library.NVMLError as error:
            self._has_counter = False
            self._reason = f"NVML does not give the GPU: {error}"
        except NoDeviceError as error:
            self._has_counter = False
            self._reason = str(error)
        self.rails = (Rail(_RAIL, frozenset({Unit.GPU}), RailRole.COMPUTE, EnergyKind.MEASURED, source),)

    def read(self) -> Reading:
        """Implements `EnergyMeter.read`. Takes about a millisecond."""
        now_ns = self._clock.now_ns()
        if self._handle is None:
            return Reading(now_ns, {}, {_RAIL: self._reason})
        try:
            if self._has_counter:
                joules = self._counter.read(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
            else:
                joules = self._integrated(now_ns, self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1e3)
        except self._nvml.NVMLError as error:
            self._counter.lose()
            self._power = None
            return Reading(now_ns, {}, {_RAIL: f"NVML does not read the GPU any more: {error}"})
        return Reading(now_ns, {_RAIL: joules}, {})

    def close(self) -> None:
        """Implements `EnergyMeter.close`."""
        self._handle, self._reason = None, CLOSED
        if self._is_open:
            self._is_open = False
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError as error:
                # Only report this error: the driver is gone, so nothing needs to be freed.
                self._reason = f"{CLOSED}: {error}"

    def _can_count(self) -> bool:
        try:
            self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except self._nvml.NVMLError:
            self._nvml.nvmlDeviceGetPowerUsage(self._handle)
            return False
        return True

    def _integrated(self, now_ns: int, watts: float) -> float:
        """Integrate the power: return the joules so far. The power between two readings is taken as their mean."""
        if self._power is not None:
            before_ns, before = self._power
            self._joules += (before + watts) / 2 * (now_ns - before_ns) / 1e9
        self._power = now_ns, watts
        return self._joules


class NoDeviceError(Exception):
    """The process sees no GPU with its own energy counter: CUDA_VISIBLE_DEVICES hides all GPUs, or names a MIG
    partition.
    """


def device(library: Nvml, visible: str | None) -> Any:
    """The first GPU that CUDA shows to this process. `visible` is the value of CUDA_VISIBLE_DEVICES."""
    first = "0" if visible is None else visible.split(",")[0].strip()
    if first.isdigit():
        return library.nvmlDeviceGetHandleByIndex(int(first))
    if first.startswith("GPU-"):
        return library.nvmlDeviceGetHandleByUUID(first)
    if first.startswith("MIG-"):
        raise NoDeviceError("a part of a GPU (MIG) has no counter of its own: CUDA_VISIBLE_DEVICES names one")
    raise NoDeviceError(f"CUDA_VISIBLE_DEVICES is '{visible}', which shows no GPU to this process")
