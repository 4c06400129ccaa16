"""Compute units: `cpu`, `amx` (the CPU's matrix unit), `gpu`, `ane` (the Neural Engine)."""

from dataclasses import dataclass
from enum import Enum


class Unit(Enum):
    """A compute unit of a machine. The value is its name wherever a person writes it."""

    CPU = "cpu"
    AMX = "amx"
    GPU = "gpu"
    ANE = "ane"

    # Enum's own hash is a slow Python function, and every batch looks up its unit. Members are singletons, so their
    # identity is a hash.
    __hash__ = object.__hash__


class Presence(Enum):
    """Whether a machine has a unit. An emulated unit gives the unit's answers, never its speed."""

    PRESENT = "present"
    EMULATED = "emulated"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """One unit of this machine.

    Attributes:
        unit: the unit.
        presence: whether the machine has it.
        description: the hardware behind it ("Apple M2 Pro, 10 cores"), empty if absent.
        reason: why it is absent or emulated and what would bring it, empty if present.
    """

    unit: Unit
    presence: Presence
    description: str = ""
    reason: str = ""
