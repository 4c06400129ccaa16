"""Reads from NVIDIA's management library (NVML), through nvidia-ml-py, whether heat has slowed down a GPU."""

import importlib
import importlib.util
import json
import os
from collections.abc import Mapping
from typing import Any, Final, cast

from triune.core.units import Unit
from triune.hardware.energy.nvml import NoDeviceError, device
from triune.hardware.nvidia import read_nvidia

_REASONS: Final = {
    0x20: "its driver lowers the clocks to keep its temperature below the limit",
    0x40: "the hardware halves the clocks or more, since its temperature is too high",
}
"""Bits of `nvmlDeviceGetCurrentClocksEventReasons` that are heat: SwThermalSlowdown and HwThermalSlowdown. Others are
idleness, limits of power, and settings. Source: NVML API Reference, nvmlClocksEventReasons.
"""


def read_nvidia_slowing(environment: Mapping[str, str] = os.environ) -> str:
    """NVML's reasons why the clocks of this process's GPU are lowered, as JSON for `parse_slowing`; "" without a GPU or
    `pynvml`.
    """
    if not read_nvidia() or importlib.util.find_spec("pynvml") is None:
        return ""
    return nvidia_slowing(importlib.import_module("pynvml"), environment)


def nvidia_slowing(nvml: Any, environment: Mapping[str, str]) -> str:
    """NVML's reasons why the GPU's clocks are lowered, as JSON; "" if NVML does not answer.

    Args:
        nvml: the module `pynvml`.
        environment: the environment of this process.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ""
    try:
        handle = device(nvml, environment.get("CUDA_VISIBLE_DEVICES"))
        # Use the older name of the function where the new one is missing, as with drivers before 535.
        ask = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        return json.dumps(
            {
                "name": nvml.nvmlDeviceGetName(handle),
                "clocks_event_reasons": ask(handle),
                "celsius": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            }
        )
    except (nvml.NVMLError, NoDeviceError):
        return ""
    finally:
        _shut_down(nvml)


def parse_slowing(text: str) -> tuple[tuple[Unit, str], ...]:
    """Parse the text of `read_nvidia_slowing`. Returns the GPU and the reason if heat has slowed it down; else an empty
    tuple.
    """
    try:
        content: object = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(content, dict):
        return ()
    table = cast("dict[str, object]", content)
    bits, name, celsius = (table.get(key) for key in ("clocks_event_reasons", "name", "celsius"))
    if not isinstance(bits, int) or isinstance(bits, bool):
        return ()
    reasons = [reason for bit, reason in _REASONS.items() if bits & bit]
    if not reasons:
        return ()
    at = f" at {celsius} C" if isinstance(celsius, int) and not isinstance(celsius, bool) else ""
    return ((Unit.GPU, f"{name if isinstance(name, str) else 'the GPU'}{at}: {' and '.join(reasons)}"),)


def _shut_down(nvml: Any) -> None:
    """Shut down NVML. An error is ignored: if the driver is gone, there is nothing left to free."""
    try:
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        return
