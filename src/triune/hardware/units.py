"""Detects which compute units this machine has, and why it lacks the others."""

import importlib.util
from collections.abc import Callable

from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.cpu import Cpu

AMX_FEATURES = frozenset({"amx_tile", "amx_bf16"})
"""Linux's names for Intel's tile registers and their bf16 products. Source: /proc/cpuinfo's x86 flags."""


def is_installed(package: str) -> bool:
    """Whether a Python package is installed. Does not import it."""
    return importlib.util.find_spec(package) is not None


def detect_units(cpu: Cpu, *, is_installed: Callable[[str], bool] = is_installed) -> tuple[UnitStatus, ...]:
    """The status of every unit, in the order of `Unit`.

    Args:
        cpu: this machine's CPU.
        is_installed: returns whether a Python package is installed.
    """
    cores = f"{cpu.num_cores} core{'s' if cpu.num_cores > 1 else ''}"
    present = UnitStatus(Unit.CPU, Presence.PRESENT, f"{cpu.name}, {cores}")
    has_core_ml = is_installed("coremltools") or is_installed("coreai")
    if cpu.is_apple_silicon:
        return (present, *(_apple(unit, words, cpu, has_core_ml=has_core_ml) for unit, words in _APPLE.items()))
    return (
        present,
        _amx(cpu, is_installed=is_installed),
        UnitStatus(Unit.GPU, Presence.ABSENT, reason="no runtime of this version of Triune runs on a GPU yet"),
        _emulated_ane(cpu, has_core_ml=has_core_ml),
    )


_APPLE = {Unit.AMX: "matrix unit", Unit.GPU: "GPU", Unit.ANE: "Neural Engine"}


def _apple(unit: Unit, words: str, cpu: Cpu, *, has_core_ml: bool) -> UnitStatus:
    if has_core_ml:
        return UnitStatus(unit, Presence.PRESENT, f"{cpu.name}'s {words}, through Core ML")
    reason = f"{cpu.name}'s {words} is reached through Core ML, which needs coremltools: pip install 'triune[coreml]'"
    return UnitStatus(unit, Presence.ABSENT, reason=reason)


def _amx(cpu: Cpu, *, is_installed: Callable[[str], bool]) -> UnitStatus:
    if missing := sorted(AMX_FEATURES - cpu.features):
        reason = f"{cpu.name} has no AMX tiles: it lacks {' and '.join(missing)} (Intel Xeons have them from 2023 on)"
    elif not is_installed("openvino"):
        reason = f"{cpu.name} has AMX tiles, but OpenVINO is not installed: pip install 'triune[openvino]'"
    else:
        return UnitStatus(Unit.AMX, Presence.PRESENT, f"{cpu.name}, AMX tiles in bf16")
    return UnitStatus(Unit.AMX, Presence.ABSENT, reason=reason)


def _emulated_ane(cpu: Cpu, *, has_core_ml: bool) -> UnitStatus:
    lack = f"{cpu.name} has no Neural Engine, which is Apple's"
    if not has_core_ml:
        reason = f"{lack}, and emulating one needs coremltools: pip install 'triune[coreml]'"
        return UnitStatus(Unit.ANE, Presence.ABSENT, reason=reason)
    reason = (
        f"{lack}; Core ML programs run on the CPU in fp16, for their answers and not for speed, "
        "where a model or a request names 'ane'"
    )
    return UnitStatus(Unit.ANE, Presence.EMULATED, reason=reason)
