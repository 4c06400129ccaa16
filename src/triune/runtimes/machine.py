"""One machine: the units that it has, and the runtimes that are installed on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triune.core.errors import UnsupportedError
from triune.core.runtime import Runtime
from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.runtimes.registry import available, stand_ins


@dataclass(frozen=True)
class Machine:
    """What models are loaded on. It can be pickled: a worker process loads models with its own copy.

    Attributes:
        runtimes: by backend name, the usual one first.
        units: the status of every unit.
        num_cores: CPU cores that models may use together.
    """

    runtimes: Mapping[str, Runtime]
    units: Sequence[UnitStatus]
    num_cores: int

    def status(self, unit: Unit) -> UnitStatus:
        """The status of `unit`; a unit that nobody reported is absent."""
        for each in self.units:
            if each.unit is unit:
                return each
        return UnitStatus(unit, Presence.ABSENT, reason="this system has no such unit")

    def present(self) -> str:
        """The units that it has or emulates, for messages."""
        return ", ".join(each.unit.value for each in self.units if each.presence is not Presence.ABSENT) or "none"

    def runtime_for(self, backend: str, unit: Unit) -> Runtime:
        """The runtime that serves `unit` for a model of `backend`.

        The rule: the backend's own runtime wherever it reaches, else its stand-in. So `onnxruntime` with the units cpu
        and amx is served by ONNX Runtime on cpu and by OpenVINO on amx, from one ONNX file; `openvino` serves both.

        Raises:
            UnsupportedError: nothing here serves it.
        """
        own = self.runtimes.get(backend)
        if own is not None and unit in own.units():
            return own
        names = stand_ins(backend, unit)
        able = [self.runtimes[name] for name in names if name in self.runtimes]
        able = [each for each in able if unit in each.units()]
        if able:
            # Core AI reaches the Neural Engine where the system has it; elsewhere it is one unit among others to it.
            return next((each for each in able if each.units()[0] is unit), able[0])
        status = self.status(unit)
        if status.presence is Presence.ABSENT:
            raise UnsupportedError(
                f"unit '{unit.value}' is absent on this machine ({status.reason}); "
                f"present are {self.present()}: name one of these in parameters 'units'"
            )
        missing = [name for name in names if name not in self.runtimes]
        if missing:
            remedies = " or ".join(f"pip install 'triune[{name}]'" for name in missing)
            raise UnsupportedError(
                f"unit '{unit.value}' of a model of backend '{backend}' is served by {' or '.join(missing)}, which is "
                f"not installed: {remedies}"
            )
        raise UnsupportedError(
            f"backend '{backend}' does not run on unit '{unit.value}' here; name another unit in parameters 'units'"
        )


def this_machine(*, conversion_bytes: int | None = None, run_bytes: int | None = None) -> Machine:
    """The machine that this process runs on. Imports the libraries of its runtimes.

    Args:
        conversion_bytes: the memory that a conversion may take; None takes three quarters of the machine's.
        run_bytes: the memory that one run of ONNX Runtime may take; None sets no limit.
    """
    cpu = read_cpu()
    units = detect_units(cpu)
    return Machine(available(units, conversion_bytes=conversion_bytes, run_bytes=run_bytes), units, cpu.num_cores)
