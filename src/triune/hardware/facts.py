"""The description of one compute unit of this machine, also as JSON. `docs/units.md` describes the JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias

from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.caches import Cache
from triune.hardware.cpu import CoreLevel
from triune.hardware.figures import Figure

Json: TypeAlias = dict[str, Any]

SCHEMA: Final = 1
"""The version of the JSON. It changes when a field is changed or removed, not when one is added."""

PRECISIONS: Final = ("fp32", "fp16", "bf16", "int8", "int4")


class Support(Enum):
    """How a unit handles a precision. The value is its name in JSON."""

    COMPUTES = "computes"
    """The unit computes products in the precision."""
    CONVERTED = "converted"
    """The unit takes tensors of the precision, but computes products in another one."""
    WEIGHTS = "weights"
    """The unit takes only weights of the precision, which are converted to another one for products."""
    NO = "no"
    """The unit refuses models with tensors of the precision."""


@dataclass(frozen=True, slots=True)
class RuntimeVersion:
    """An installed runtime that serves a unit.

    Attributes:
        name: the name of the backend in configs, such as "onnxruntime".
        title: the library's name, "ONNX Runtime".
        version: the version of its package; "" if its package is unknown.
    """

    name: str
    title: str
    version: str


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """One unit of this machine.

    Attributes:
        status: whether the machine has it, its description, and why it is absent or emulated.
        name: the hardware, "Apple M2 Pro"; "" if the machine has none.
        cores: the number of cores of each kind; empty if unknown, or if the unit has no cores.
        caches: for a CPU, the caches of its fastest cores.
        memory_bytes: the memory that the unit can use; None if unknown.
        is_memory_shared: whether the unit uses the CPU's memory.
        precisions: how the unit handles each of `PRECISIONS`; empty if it is absent.
        features: "dynamic_shapes", "int8_compute" and "state", each with "yes", "no" or a short condition. A CPU also
            has "instructions". An NVIDIA GPU has "compute_capability", "driver" and, if there are several, "devices".
            Empty if the unit is absent.
        figures: rates, bandwidths, times and watts by the names of `chip.py`, each with its source.
        runtimes: the installed runtimes that serve it.
        unavailable: the fields and figures that could not be read, by name, with the reason.
    """

    status: UnitStatus
    name: str = ""
    cores: Sequence[CoreLevel] = ()
    caches: Sequence[Cache] = ()
    memory_bytes: int | None = None
    is_memory_shared: bool = False
    precisions: Mapping[str, Support] = field(default_factory=dict[str, Support])
    features: Mapping[str, str] = field(default_factory=dict[str, str])
    figures: Mapping[str, Figure] = field(default_factory=dict[str, Figure])
    runtimes: Sequence[RuntimeVersion] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def unit(self) -> Unit:
        """The unit."""
        return self.status.unit

    @property
    def presence(self) -> Presence:
        """Whether the machine has the unit."""
        return self.status.presence

    @property
    def description(self) -> str:
        """The hardware in words; "" if the unit is absent."""
        return self.status.description

    @property
    def reason(self) -> str:
        """Why the unit is absent or emulated, and what would change that; "" if it is present."""
        return self.status.reason


def units_json(units: Sequence[UnitFacts]) -> Json:
    """All units as JSON."""
    return {"schema": SCHEMA, "units": [_unit_json(each) for each in units]}


def _unit_json(facts: UnitFacts) -> Json:
    return {
        "unit": facts.unit.value,
        "presence": facts.presence.value,
        "description": facts.description,
        "reason": facts.reason,
        "name": facts.name,
        "cores": [{"kind": each.name, "count": each.num_cores} for each in facts.cores],
        "caches": [{"level": each.level, "kind": each.kind, "size_bytes": each.size_bytes} for each in facts.caches],
        "memory": {"size_bytes": facts.memory_bytes, "is_shared": facts.is_memory_shared},
        "precisions": {name: support.value for name, support in facts.precisions.items()},
        "features": dict(facts.features),
        "figures": {name: figure_json(figure) for name, figure in facts.figures.items()},
        "runtimes": [{"name": each.name, "title": each.title, "version": each.version} for each in facts.runtimes],
        "unavailable": dict(facts.unavailable),
    }


def figure_json(figure: Figure) -> Json:
    """A figure as JSON. `basis`, `low`, `high` and `note` are omitted if they are not set."""
    optional = {"basis": figure.basis, "low": figure.low, "high": figure.high, "note": figure.note}
    return {
        "value": figure.value,
        "unit": figure.unit,
        "kind": figure.kind.value,
        "source": figure.source,
        **{name: value for name, value in optional.items() if value not in ("", None)},
    }
