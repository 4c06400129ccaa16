"""NVIDIA's GPUs, as NVIDIA's management library (NVML) describes them, through nvidia-ml-py."""

import importlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

_NOT_INSTALLED: Final = "nvidia-ml-py is not installed: pip install 'triune[energy]'"

_CORES_PER_SM: Final = {(7, 0): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128, (8, 9): 128, (9, 0): 128}
"""The cores of a streaming multiprocessor, by compute capability. Source: CUDA C++ Programming Guide."""


@dataclass(frozen=True, slots=True)
class NvidiaGpu:
    """One of NVIDIA's GPUs. What its driver does not report is None.

    Attributes:
        name: "NVIDIA H200".
        driver: the driver's version, "580.159.04"; "" if unknown.
        memory_bytes: the memory of the GPU.
        num_cores: the number of CUDA cores.
        compute_capability: CUDA's compute capability, such as (9, 0) for Hopper.
        bus_width_bits: the width of the memory's bus.
        core_clock_mhz: the highest clock of the cores.
        memory_clock_mhz: the highest clock of the memory, which moves two bits for each line of the bus in a cycle.
    """

    name: str
    driver: str = ""
    memory_bytes: int | None = None
    num_cores: int | None = None
    compute_capability: tuple[int, int] | None = None
    bus_width_bits: int | None = None
    core_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None

    @property
    def num_multiprocessors(self) -> int | None:
        """The number of streaming multiprocessors (SM); None if unknown."""
        per_sm = _CORES_PER_SM.get(self.compute_capability) if self.compute_capability else None
        return self.num_cores // per_sm if per_sm and self.num_cores else None

    @property
    def gb_per_s(self) -> float | None:
        """The memory's bandwidth in 10^9 bytes per second, computed from its bus width and its clock; None if
        unknown.
        """
        if not self.bus_width_bits or not self.memory_clock_mhz:
            return None
        return self.bus_width_bits / 8 * self.memory_clock_mhz * 2 / 1000

    @property
    def fp32_tflops(self) -> float | None:
        """The peak fp32 rate of the CUDA cores, each with one multiplication and one addition per cycle; None if
        unknown.
        """
        if not self.num_cores or not self.core_clock_mhz:
            return None
        return self.num_cores * 2 * self.core_clock_mhz / 1e6


def read_nvml() -> str:
    """NVML's description of the GPUs as JSON for `parse_nvml`: `{"gpus": [...]}`, or `{"reason": ...}` without GPUs."""
    if importlib.util.find_spec("pynvml") is None:
        return json.dumps({"reason": _NOT_INSTALLED})
    nvml: Any = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return json.dumps({"reason": f"NVML does not start: {error}"})
    try:
        driver = _tell(nvml, nvml.nvmlSystemGetDriverVersion)
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return json.dumps({"gpus": [{"driver": driver, **_describe(nvml, handle)} for handle in handles]})
    except nvml.NVMLError as error:
        return json.dumps({"reason": f"NVML does not list the GPUs: {error}"})
    finally:
        _tell(nvml, nvml.nvmlShutdown)


def parse_nvml(text: str) -> tuple[tuple[NvidiaGpu, ...], str]:
    """Parse the text of `read_nvml`. Returns the GPUs, and why there are none, "" if there are some. GPUs without a
    name are left out.
    """
    try:
        content: object = json.loads(text)
    except (ValueError, RecursionError):
        return (), "NVML was not asked"
    table = _table(content)
    entries: object = table.get("gpus")
    found = [_parse(_table(each)) for each in cast("list[object]", entries)] if isinstance(entries, list) else []
    gpus = tuple(each for each in found if each is not None)
    reason = table.get("reason")
    return gpus, "" if gpus else reason if isinstance(reason, str) and reason else "NVML lists no GPU"


def _describe(nvml: Any, handle: Any) -> dict[str, Any]:
    capability = _tell(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    memory = _tell(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    return {
        "name": _tell(nvml, nvml.nvmlDeviceGetName, handle),
        "memory_bytes": None if memory is None else memory.total,
        "num_cores": _tell(nvml, nvml.nvmlDeviceGetNumGpuCores, handle),
        "compute_capability": None if capability is None else list(capability),
        "bus_width_bits": _tell(nvml, nvml.nvmlDeviceGetMemoryBusWidth, handle),
        "core_clock_mhz": _tell(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": _tell(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_MEM),
    }


def _tell(nvml: Any, ask: Any, *arguments: Any) -> Any:
    """The result of the NVML function `ask`; None if this GPU or driver does not support it."""
    try:
        return ask(*arguments)
    except nvml.NVMLError:
        return None


def _table(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else dict[str, Any]()


def _parse(table: Mapping[str, Any]) -> NvidiaGpu | None:
    name, driver, capability = table.get("name"), table.get("driver"), table.get("compute_capability")
    if not isinstance(name, str) or not name:
        return None
    match capability:
        case [int(major), int(minor)]:
            version = (major, minor)
        case _:
            version = None
    return NvidiaGpu(
        name,
        driver if isinstance(driver, str) else "",
        _count(table.get("memory_bytes")),
        _count(table.get("num_cores")),
        version,
        _count(table.get("bus_width_bits")),
        _count(table.get("core_clock_mhz")),
        _count(table.get("memory_clock_mhz")),
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 60 else None
