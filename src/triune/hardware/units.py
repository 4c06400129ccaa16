"""Which compute units this machine has, and why it lacks the others."""

import importlib.util
from collections.abc import Callable

from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.cpu import Cpu

AMX_FEATURES = frozenset({"amx_tile", "amx_bf16"})
"""What Linux calls Intel's tile registers and bf16 products on them. Source: /proc/cpuinfo's x86 flags."""


def is_installed(package: str) -> bool:
    """Whether a Python package could be imported. It is not imported."""
    return importlib.util.find_spec(package) is not None


def detect_units(cpu: Cpu, *, is_installed: Callable[[str], bool] = is_installed) -> tuple[UnitStatus, ...]:
    """The status of every unit, in the order of `Unit`.

    Args:
        cpu: this machine's CPU.
        is_installed: tells whether a Python package is here.
    """
    cores = f"{cpu.num_cores} core{'s' if cpu.num_cores > 1 else ''}"
    return (
        UnitStatus(Unit.CPU, Presence.PRESENT, f"{cpu.name}, {cores}"),
        _amx(cpu, is_installed=is_installed),
        UnitStatus(Unit.GPU, Presence.ABSENT, reason=_gpu_reason(cpu)),
        UnitStatus(Unit.ANE, Presence.ABSENT, reason=_ane_reason(cpu)),
    )


def _amx(cpu: Cpu, *, is_installed: Callable[[str], bool]) -> UnitStatus:
    if cpu.is_apple_silicon:
        reason = (
            f"{cpu.name} has a matrix unit, but Triune reaches it only by way of Core ML, which this version "
            "does not run yet; unit 'cpu' serves"
        )
    elif missing := sorted(AMX_FEATURES - cpu.features):
        reason = f"{cpu.name} has no AMX tiles: it lacks {' and '.join(missing)} (Intel Xeons have them from 2023 on)"
    elif not is_installed("openvino"):
        reason = f"{cpu.name} has AMX tiles, but OpenVINO is not installed: pip install 'triune[openvino]'"
    else:
        return UnitStatus(Unit.AMX, Presence.PRESENT, f"{cpu.name}, AMX tiles in bf16")
    return UnitStatus(Unit.AMX, Presence.ABSENT, reason=reason)


def _gpu_reason(cpu: Cpu) -> str:
    whose = f"{cpu.name}'s GPU" if cpu.is_apple_silicon else "a GPU"
    return f"no runtime of this version of Triune runs on {whose} yet"


def _ane_reason(cpu: Cpu) -> str:
    if cpu.is_apple_silicon:
        return f"no runtime of this version of Triune runs on {cpu.name}'s Neural Engine yet; Core ML comes later"
    return f"{cpu.name} has no Neural Engine, which is Apple's, and this version of Triune does not emulate one yet"
