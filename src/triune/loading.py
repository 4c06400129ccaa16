"""One model on one unit, without a server: what `triune.load` gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.core.requests import Parameter
from triune.core.runtime import Executable
from triune.core.tensors import Signature, describe
from triune.core.units import Presence, Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.repository.placement import Machine, runtime_for
from triune.runtimes import available, missing

_BACKENDS: Final[Mapping[str, str]] = {
    ".onnx": "onnxruntime",
    ".mlpackage": "coreml",
    ".mlmodelc": "coreml",
    ".aimodel": "coreai",
}


class LoadedModel:
    """A model, ready to run. One call runs at a time. Close it, or use it as a context manager, to free it.

    Attributes:
        unit: what it runs on.
        is_emulated: the unit is not here: the answers are those of its numerics, the speed says nothing.
        precision: what it computes in.
        signature: its inputs and outputs.
    """

    def __init__(self, executable: Executable, *, is_emulated: bool) -> None:
        """`executable` is closed with it."""
        self._executable = executable
        self.is_emulated: Final = is_emulated
        self.unit: Final[Unit] = executable.unit
        self.precision: Final[str] = executable.precision
        self.signature: Final[Signature] = executable.signature

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Compute.

        Args:
            inputs: arrays, or what numpy makes arrays of, of the signature's shapes and datatypes, by name.
            outputs: which of the outputs; all if None.

        Raises:
            InvalidArgumentError: an input is missing, unknown or not what the model takes, or an output is unknown.
        """
        known = {spec.name: spec for spec in self.signature.inputs}
        unknown = sorted(inputs.keys() - known.keys())
        if unknown:
            raise InvalidArgumentError(f"the model has no input '{unknown[0]}'; it has {', '.join(known)}")
        arrays: dict[str, Array] = {}
        for name, spec in known.items():
            if name not in inputs:
                if not spec.is_optional:
                    raise InvalidArgumentError(f"input '{name}' is missing; it is {spec}")
                continue
            arrays[name] = np.asarray(inputs[name])
            fits = not spec.has_rank or (
                len(spec.shape) == arrays[name].ndim
                and all(size in (-1, have) for have, size in zip(arrays[name].shape, spec.shape, strict=True))
            )
            if DataType.of(arrays[name]) is not spec.datatype or not fits:
                raise InvalidArgumentError(f"input '{name}' is {describe(arrays[name])}; the model takes {spec}")
        names = [spec.name for spec in self.signature.outputs]
        strange = sorted(set(outputs or ()) - set(names))
        if strange:
            raise InvalidArgumentError(f"the model has no output '{strange[0]}'; it has {', '.join(names)}")
        return self._executable.run(arrays, list(outputs or names))

    def close(self) -> None:
        """Free it. No `run` is under way and none follows."""
        self._executable.close()

    def __enter__(self) -> "LoadedModel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(
    path: Path | str, units: Sequence[str] | None = None, *, options: Mapping[str, Parameter] | None = None
) -> LoadedModel:
    """Load a model file for one unit.

    Args:
        path: an .onnx, .mlpackage, .mlmodelc or .aimodel.
        units: names of units, the first that can run it is taken: `["ane", "cpu"]`. None takes the best that is here;
            an emulated one has to be named.
        options: the runtime's own settings, as a config's parameters: `{"coreml.function": "prefill"}`.

    Raises:
        NotFoundError: there is no such file.
        InvalidArgumentError: it is none of these, it is broken, or a unit or option is unknown.
        UnsupportedError: none of the units can run it; the reason of each.
    """
    path = Path(path)
    if not path.exists():
        raise NotFoundError(f"there is no '{path}'")
    if path.suffix not in _BACKENDS:
        raise InvalidArgumentError(f"'{path.name}' ends in none of {', '.join(_BACKENDS)}")
    backend = _BACKENDS[path.suffix]
    cpu = read_cpu()
    statuses = detect_units(cpu)
    machine = Machine(available(statuses), statuses, cpu.num_cores)
    if backend not in machine.runtimes:
        raise InvalidArgumentError(missing()[backend])
    presences = {status.unit: status.presence for status in statuses}
    if units is None:
        own = machine.runtimes[backend].units()
        chosen = [next(unit for unit in own if presences.get(unit) is Presence.PRESENT)]
    else:
        chosen = _units(units)
    unit = next((each for each in chosen if _can_run(backend, each, machine)), chosen[0])
    runtime = runtime_for(backend, unit, machine)
    executable = runtime.load(path, unit=unit, num_threads=cpu.num_cores, options=options or {})
    return LoadedModel(executable, is_emulated=presences.get(unit) is Presence.EMULATED)


def _units(names: Sequence[str]) -> list[Unit]:
    known = {unit.value: unit for unit in Unit}
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise InvalidArgumentError(f"there is no unit {wrong[0]!r}" if wrong else "no unit is named; name one or more")
    return [known[name] for name in names]


def _can_run(backend: str, unit: Unit, machine: Machine) -> bool:
    own = machine.runtimes.get(backend)
    return (own is not None and unit in own.units()) or machine.status(unit).presence is not Presence.ABSENT
