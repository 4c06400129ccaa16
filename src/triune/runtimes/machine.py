"""The machine: its units, and the installed runtimes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from triune.core.errors import UnsupportedError
from triune.core.runtime import Runtime
from triune.core.units import Presence, Unit, UnitStatus
from triune.graph.custom import NO_CUSTOM_OPS, CustomOps
from triune.hardware.cpu import read_cpu
from triune.hardware.memory import most_model_bytes
from triune.hardware.units import detect_units
from triune.runtimes.custom import WithCustomOps
from triune.runtimes.registry import available, stand_ins


@dataclass(frozen=True)
class Machine:
    """The units and runtimes with which models are loaded. It can be pickled, for worker processes.

    Attributes:
        runtimes: the runtimes by backend name, the default one first.
        units: the status of every unit.
        num_cores: the number of CPU cores that models may use together.
        custom_ops: the custom operators, which the runtimes know.
        conversion_bytes: the memory limit of a conversion; None means three quarters of the machine's memory.
        load_bytes: the memory limit of a load in a separate process; None means nine tenths of the machine's memory.
    """

    runtimes: Mapping[str, Runtime]
    units: Sequence[UnitStatus]
    num_cores: int
    custom_ops: CustomOps = NO_CUSTOM_OPS
    conversion_bytes: int | None = None
    load_bytes: int | None = None

    def load_limit(self) -> int:
        """The memory limit of a load in a separate process, in bytes."""
        return most_model_bytes() if self.load_bytes is None else self.load_bytes

    def status(self, unit: Unit) -> UnitStatus:
        """The status of `unit`. A unit that was not detected is absent."""
        for each in self.units:
            if each.unit is unit:
                return each
        return UnitStatus(unit, Presence.ABSENT, reason="this system has no such unit")

    def emulated(self, units: Iterable[Unit]) -> frozenset[Unit]:
        """The units among `units` that are emulated."""
        return frozenset(unit for unit in units if self.status(unit).presence is Presence.EMULATED)

    def present(self) -> str:
        """The units that are present or emulated, for messages."""
        return ", ".join(each.unit.value for each in self.units if each.presence is not Presence.ABSENT) or "none"

    def runtime_for(self, backend: str, unit: Unit, where: str = "") -> Runtime:
        """The runtime that runs models of `backend` on `unit`.

        It is the backend's own runtime, if that supports the unit, else one that reads the same files. For example,
        with an ONNX file of the backend `onnxruntime`, ONNX Runtime serves cpu and OpenVINO serves amx.

        Args:
            backend: the backend.
            unit: the unit.
            where: the end of the error message: where another unit can be named, such as " in parameter 'units'".

        Raises:
            UnsupportedError: no installed runtime supports the unit.
        """
        own = self.runtimes.get(backend)
        if own is not None and unit in own.units():
            return own
        names = stand_ins(backend, unit)
        able = [self.runtimes[name] for name in names if name in self.runtimes]
        able = [each for each in able if unit in each.units()]
        if able:
            # Prefer the runtime whose first unit is `unit`: Core AI puts `ane` first only where it serves the real
            # Neural Engine.
            return next((each for each in able if each.units()[0] is unit), able[0])
        status = self.status(unit)
        if status.presence is Presence.ABSENT:
            raise UnsupportedError(
                f"unit '{unit.value}' is absent on this machine ({status.reason}); "
                f"choose one of {self._choices(backend)}{where}"
            )
        missing = [name for name in names if name not in self.runtimes]
        if missing:
            remedies = " or ".join(f"pip install 'triune[{name}]'" for name in missing)
            raise UnsupportedError(
                f"unit '{unit.value}' of a model of backend '{backend}' is served by {' or '.join(missing)}, which is "
                f"not installed: {remedies}"
            )
        raise UnsupportedError(
            f"backend '{backend}' does not run on unit '{unit.value}' here; choose one of "
            f"{self._choices(backend)}{where}"
        )

    def _choices(self, backend: str) -> str:
        """The units that models of `backend` can run on here, for messages."""
        own = self.runtimes.get(backend)
        runs = set(own.units()) if own is not None else set[Unit]()
        for each in self.units:
            others = [self.runtimes[name] for name in stand_ins(backend, each.unit) if name in self.runtimes]
            if any(each.unit in other.units() for other in others):
                runs.add(each.unit)
        found = [each.unit.value for each in self.units if each.presence is not Presence.ABSENT and each.unit in runs]
        return ", ".join(found) or "none"


def this_machine(
    *,
    conversion_bytes: int | None = None,
    load_bytes: int | None = None,
    run_bytes: int | None = None,
    custom_ops: CustomOps = NO_CUSTOM_OPS,
) -> Machine:
    """The machine that this process runs on. Imports the libraries of its runtimes.

    Args:
        conversion_bytes: the memory limit of a conversion; None means three quarters of the machine's memory.
        load_bytes: the memory limit of a load in a separate process; None means nine tenths of the machine's memory.
        run_bytes: the memory limit of one run; None sets no limit.
        custom_ops: custom operators that models may have in addition to ONNX's.
    """
    cpu = read_cpu()
    units = detect_units(cpu)
    runtimes = available(
        units, conversion_bytes=conversion_bytes, run_bytes=run_bytes, op_libraries=custom_ops.libraries
    )
    if custom_ops:
        runtimes = {name: WithCustomOps(each, custom_ops, run_bytes) for name, each in runtimes.items()}
    return Machine(runtimes, units, cpu.num_cores, custom_ops, conversion_bytes, load_bytes)
