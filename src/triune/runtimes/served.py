"""Determines which units each runtime serves on a machine, without importing its library."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from triune.core.units import Presence, Unit, UnitStatus

CORE_ML_UNITS: Final = (Unit.ANE, Unit.GPU, Unit.AMX)
"""The units of Core ML on a Mac, in the order in which models prefer them."""


def onnxruntime_units() -> Sequence[Unit]:
    """The units of ONNX Runtime: only the CPU."""
    return (Unit.CPU,)


def openvino_units(units: Sequence[UnitStatus]) -> Sequence[Unit]:
    """The units of OpenVINO: `amx`, if this CPU has it, then `cpu`."""
    return (Unit.AMX, Unit.CPU) if _presence(units)[Unit.AMX] is Presence.PRESENT else (Unit.CPU,)


def mlx_units(units: Sequence[UnitStatus]) -> Sequence[Unit]:
    """The units of MLX: `gpu`, if the machine has one or emulates it."""
    return (Unit.GPU,) if _presence(units)[Unit.GPU] is not Presence.ABSENT else ()


def coreai_units(units: Sequence[UnitStatus], raised: Collection[Unit], *, has_core_ai: bool) -> Sequence[Unit]:
    """The units of Core AI, if the system has it; the units `raised`; and the emulated Neural Engine.

    Args:
        units: this machine's units.
        raised: the units on which another runtime runs ONNX models made from assets.
        has_core_ai: whether the system has Core AI.
    """
    own = (Unit.ANE, Unit.GPU) if has_core_ai else ()
    others = [unit for unit in (Unit.CPU, Unit.AMX) if unit in raised]
    is_emulated = _presence(units)[Unit.ANE] is Presence.EMULATED
    return (*own, *others, *((Unit.ANE,) if is_emulated and not own else ()))


def coreml_units(units: Sequence[UnitStatus]) -> Sequence[Unit]:
    """The units of Core ML on this machine, or the emulated Neural Engine if there is no Core ML; then the CPU."""
    presence = _presence(units)
    if presence[Unit.ANE] is Presence.PRESENT:
        return (*(unit for unit in CORE_ML_UNITS if presence[unit] is Presence.PRESENT), Unit.CPU)
    return (Unit.ANE, Unit.CPU) if presence[Unit.ANE] is Presence.EMULATED else (Unit.CPU,)


def _presence(units: Sequence[UnitStatus]) -> Mapping[Unit, Presence]:
    """The presence of each unit; one that was not detected is absent."""
    return {**dict.fromkeys(Unit, Presence.ABSENT), **{each.unit: each.presence for each in units}}
