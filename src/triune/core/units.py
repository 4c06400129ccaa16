"""Compute units: `cpu`, `amx` (the CPU's matrix unit), `gpu`, `ane` (the Neural Engine)."""

from dataclasses import dataclass
from enum import Enum


class Unit(Enum):
    """A compute unit of a machine. The value is its name in configs, flags and messages."""

    CPU = "cpu"
    AMX = "amx"
    GPU = "gpu"
    ANE = "ane"

    # Use object's hash, by identity, since members are singletons: Enum's own hash is a slow Python function, and every
    # batch looks up its unit.
    __hash__ = object.__hash__


class Presence(Enum):
    """Whether a machine has a unit. An emulated unit computes the same results as the unit, but not at its speed."""

    PRESENT = "present"
    EMULATED = "emulated"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """One unit of this machine.

    Attributes:
        unit: the unit.
        presence: whether the machine has it.
        description: the hardware, such as "Apple M2 Pro, 10 cores"; empty if the unit is absent.
        reason: why it is absent or emulated, and what would change that; empty if it is present.
    """

    unit: Unit
    presence: Presence
    description: str = ""
    reason: str = ""
