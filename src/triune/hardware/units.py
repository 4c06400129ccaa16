"""Detects which compute units this machine has, and why it lacks the others."""

import importlib.util
from collections.abc import Callable

from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.cpu import Cpu
from triune.hardware.nvidia import CUDA_LIBRARIES, read_nvidia

AMX_FEATURES = frozenset({"amx_tile", "amx_bf16"})
"""Linux's names for Intel's tile registers and their bf16 products. Source: /proc/cpuinfo's x86 flags."""


_ROSETTA = (
    "Rosetta translates this Python, which was built for Intel, and hides this unit of Apple's: install a Python for "
    "arm64 (`python -c 'import platform; print(platform.machine())'` prints arm64), and Triune in it"
)


def is_installed(package: str) -> bool:
    """Whether a Python package is installed. Does not import it."""
    return importlib.util.find_spec(package) is not None


def detect_units(
    cpu: Cpu, *, is_installed: Callable[[str], bool] = is_installed, nvidia: str | None = None
) -> tuple[UnitStatus, ...]:
    """The status of every unit, in the order of `Unit`.

    Args:
        cpu: this machine's CPU.
        is_installed: returns whether a Python package is installed.
        nvidia: the NVIDIA GPU of a machine that is not Apple's, "" if it has none; None means to detect it.
    """
    cores = f"{cpu.num_cores} core{'s' if cpu.num_cores > 1 else ''}"
    name = f"{cpu.name} (Apple's CPU behind Rosetta)" if cpu.is_translated else cpu.name
    present = UnitStatus(Unit.CPU, Presence.PRESENT, f"{name}, {cores}")
    has_core_ml = is_installed("coremltools") or is_installed("coreai")
    if cpu.is_translated:
        return (present, *(UnitStatus(unit, Presence.ABSENT, reason=_ROSETTA) for unit in Unit if unit is not Unit.CPU))
    if cpu.is_apple_silicon:
        has_mlx = is_installed("mlx")
        return (
            present,
            _apple(Unit.AMX, "matrix unit", cpu, has_core_ml=has_core_ml),
            _apple(Unit.GPU, "GPU", cpu, has_core_ml=has_core_ml, has_mlx=has_mlx),
            _apple(Unit.ANE, "Neural Engine", cpu, has_core_ml=has_core_ml),
        )
    return (
        present,
        _amx(cpu, is_installed=is_installed),
        _gpu(cpu, read_nvidia() if nvidia is None else nvidia, is_installed=is_installed),
        _emulated_ane(cpu, has_core_ml=has_core_ml),
    )


def _apple(unit: Unit, words: str, cpu: Cpu, *, has_core_ml: bool, has_mlx: bool = False) -> UnitStatus:
    if has_mlx:
        return UnitStatus(unit, Presence.PRESENT, f"{cpu.name}'s {words}, through MLX")
    if has_core_ml:
        return UnitStatus(unit, Presence.PRESENT, f"{cpu.name}'s {words}, through Core ML")
    reason = f"{cpu.name}'s {words} is reached through Core ML, which needs coremltools: pip install 'triune[coreml]'"
    return UnitStatus(unit, Presence.ABSENT, reason=reason)


def _amx(cpu: Cpu, *, is_installed: Callable[[str], bool]) -> UnitStatus:
    if missing := sorted(AMX_FEATURES - cpu.features):
        reason = f"{cpu.name} has no AMX tiles: it lacks {' and '.join(missing)} (Intel Xeons have them from 2023 on)"
    elif cpu.tiles_refused:
        reason = f"{cpu.name} has AMX tiles, but {cpu.tiles_refused}"
    elif not is_installed("openvino"):
        reason = f"{cpu.name} has AMX tiles, but OpenVINO is not installed: pip install 'triune[openvino]'"
    else:
        return UnitStatus(Unit.AMX, Presence.PRESENT, f"{cpu.name}, AMX tiles in bf16")
    return UnitStatus(Unit.AMX, Presence.ABSENT, reason=reason)


def _gpu(cpu: Cpu, nvidia: str, *, is_installed: Callable[[str], bool]) -> UnitStatus:
    extra = "mlx-cuda" if nvidia else "mlx"
    lack = f"{nvidia} is reached through MLX" if nvidia else f"beside {cpu.name} there is no GPU of NVIDIA's"
    if not is_installed("mlx"):
        reason = f"{lack}{'' if nvidia else ', and emulating one needs MLX'}: pip install 'triune[{extra}]'"
        return UnitStatus(Unit.GPU, Presence.ABSENT, reason=reason)
    if nvidia and is_installed(CUDA_LIBRARIES):
        return UnitStatus(Unit.GPU, Presence.PRESENT, f"{nvidia}, through MLX")
    remedy = f", whose build for it is not installed: pip install 'triune[{extra}]'" if nvidia else ""
    reason = (
        f"{lack}{remedy}; MLX computes on the CPU, for its answers and not for speed, where a model or a request names "
        "'gpu'"
    )
    return UnitStatus(Unit.GPU, Presence.EMULATED, reason=reason)


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
