"""One model on one unit, without a server: what `triune.load` gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import numpy as np

from triune.config.placement import Machine, runtime_for
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, NotFoundError, UnavailableError
from triune.core.requests import Parameter
from triune.core.runtime import Executable
from triune.core.tensors import Signature, TensorSpec, describe
from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.runtimes.registry import ROWS, available, backend_of, missing

_FLOATS = frozenset({DataType.FP16, DataType.BF16, DataType.FP32, DataType.FP64})


class Model:
    """A model, ready to run. One call runs at a time. Close it, or use it as a context manager, to free it.

    Attributes:
        path: its file.
        unit: what it runs on.
        is_emulated: the unit is not here: the answers are those of its numerics, the speed says nothing.
        precision: what it computes in.
        signature: its inputs and outputs.
    """

    def __init__(self, path: Path, executable: Executable, *, is_emulated: bool) -> None:
        """`executable` is closed with it."""
        self._executable: Executable | None = executable
        self.path: Final = path
        self.is_emulated: Final = is_emulated
        self.unit: Final[Unit] = executable.unit
        self.precision: Final[str] = executable.precision
        self.signature: Final[Signature] = executable.signature

    def __repr__(self) -> str:
        inputs, outputs = (", ".join(map(str, each)) for each in (self.signature.inputs, self.signature.outputs))
        state = "emulated, " if self.is_emulated else ""
        closed = ", closed" if self._executable is None else ""
        return (
            f"<Model '{self.path.name}' on {self.unit.value} ({state}{self.precision}{closed}): {inputs} -> {outputs}>"
        )

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Compute.

        Args:
            inputs: by name, arrays of the signature's shapes and datatypes; or numbers, texts and lists of them, which
                become such arrays where nothing is lost: whole numbers in range, fractions only as floats.
            outputs: which of the outputs; all if None.

        Raises:
            InvalidArgumentError: an input is missing, unknown or not what the model takes, or an output is unknown.
            UnavailableError: the model is closed.
        """
        if self._executable is None:
            raise UnavailableError(f"the model '{self.path.name}' is closed; load it again")
        known = {spec.name: spec for spec in self.signature.inputs}
        unknown = sorted(inputs.keys() - known.keys())
        if unknown:
            raise InvalidArgumentError(f"the model has no input '{unknown[0]}'; it has {', '.join(known)}")
        arrays: dict[str, Array] = {}
        for name, spec in known.items():
            if name in inputs:
                arrays[name] = _as_array(spec, inputs[name])
            elif not spec.is_optional:
                raise InvalidArgumentError(f"input '{name}' is missing; it is {spec}")
        names = [spec.name for spec in self.signature.outputs]
        strange = sorted(set(outputs or ()) - set(names))
        if strange:
            raise InvalidArgumentError(f"the model has no output '{strange[0]}'; it has {', '.join(names)}")
        return self._executable.run(arrays, list(outputs or names))

    def close(self) -> None:
        """Free it. No `run` is under way. To close it again does nothing."""
        if self._executable is not None:
            self._executable.close()
            self._executable = None

    def __enter__(self) -> "Model":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _as_array(spec: TensorSpec, value: Any) -> Array:
    """A value as an array that an input takes. Raises InvalidArgumentError."""
    array = cast("Array", value) if isinstance(value, np.ndarray) else _converted(spec, value)
    fits = not spec.has_rank or (
        len(spec.shape) == array.ndim
        and all(size in (-1, have) for have, size in zip(array.shape, spec.shape, strict=True))
    )
    if DataType.of(array) is not spec.datatype or not fits:
        raise InvalidArgumentError(f"input '{spec.name}' is {describe(array)}; the model takes {spec}")
    return array


def _converted(spec: TensorSpec, value: Any) -> Array:
    """Python's numbers, texts and lists as an array of the input's datatype."""
    what = f"input '{spec.name}'"
    try:
        given = np.asarray(value, object if spec.datatype is DataType.BYTES else None)
    except ValueError as error:
        raise InvalidArgumentError(f"{what}: the lists are not of one length each: {error}") from error
    if spec.datatype is DataType.BYTES:
        elements = [each.encode() if isinstance(each, str) else each for each in given.ravel().tolist()]
        if not all(isinstance(each, bytes) for each in elements):
            raise InvalidArgumentError(f"{what} holds what is neither text nor bytes; the model takes {spec}")
        texts = np.empty(given.shape, np.object_)
        texts.reshape(-1)[:] = elements
        return texts
    if given.dtype.kind not in "biuf" or (given.dtype.kind == "b") != (spec.datatype is DataType.BOOL):
        raise InvalidArgumentError(f"{what} is made of {given.dtype.name}; the model takes {spec}")
    with np.errstate(over="ignore", invalid="ignore"):
        array = given.astype(spec.datatype.dtype)
        # A float may be rounded, as each is that Python writes into an array of fp32; a whole number may not.
        is_float = given.dtype.kind == "f" and spec.datatype in _FLOATS
        if is_float:
            is_kept = np.isfinite(array.astype(np.float64)) == np.isfinite(given)
        else:
            is_kept = array.astype(object) == given.astype(object)
    if not np.all(is_kept):
        lost = given[~np.asarray(is_kept)].ravel()[0]
        raise InvalidArgumentError(
            f"{what} holds {lost}, which {spec.datatype.value} does not hold; the model takes {spec}"
        )
    return array


def load(
    path: Path | str,
    unit: str | Sequence[str] | None = None,
    *,
    units: Sequence[str] | None = None,
    options: Mapping[str, Parameter] | None = None,
) -> Model:
    """Load a model file for one unit.

    Args:
        path: an .onnx, .mlpackage, .mlmodelc or .aimodel.
        unit: a unit's name, "cpu", "amx", "gpu" or "ane"; or a list of them, the first of which that can run it is
            taken. None takes the best that is here; an emulated one has to be named.
        units: the list by its own name; `unit` is left out then.
        options: the runtime's own settings, as a config's parameters: `{"coreml.function": "prefill"}`.

    Raises:
        NotFoundError: there is no such file.
        InvalidArgumentError: it is none of these, it is broken, or a unit or option is unknown.
        UnsupportedError: none of the units can run it; the reason of each.
    """
    path = Path(path)
    if units is not None and unit is not None:
        raise InvalidArgumentError("give unit or units, not both")
    unit = unit if units is None else units
    if not path.exists():
        raise NotFoundError(f"there is no '{path}'")
    backend = backend_of(path.suffix)
    if backend is None:
        suffixes = ", ".join(suffix for row in ROWS for suffix in row.suffixes)
        raise InvalidArgumentError(f"'{path.name}' ends in none of {suffixes}")
    cpu = read_cpu()
    statuses = detect_units(cpu)
    machine = Machine(available(statuses), statuses, cpu.num_cores)
    if backend not in machine.runtimes:
        raise InvalidArgumentError(missing()[backend])
    presences = {status.unit: status.presence for status in statuses}
    if unit is None:
        own = machine.runtimes[backend].units()
        chosen = [next(each for each in own if presences.get(each) is Presence.PRESENT)]
    else:
        chosen = _units([unit] if isinstance(unit, str) else unit)
    taken = next((each for each in chosen if _can_run(backend, each, machine)), chosen[0])
    runtime = runtime_for(backend, taken, machine)
    executable = runtime.load(path, unit=taken, num_threads=cpu.num_cores, options=options or {})
    return Model(path, executable, is_emulated=presences.get(taken) is Presence.EMULATED)


def units() -> Sequence[UnitStatus]:
    """Every compute unit: whether this machine has it, what it is, and why it has not."""
    return detect_units(read_cpu())


def _units(names: Sequence[str]) -> list[Unit]:
    known = {unit.value: unit for unit in Unit}
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise InvalidArgumentError(f"there is no unit {wrong[0]!r}" if wrong else "no unit is named; name one or more")
    return [known[name] for name in names]


def _can_run(backend: str, unit: Unit, machine: Machine) -> bool:
    own = machine.runtimes.get(backend)
    return (own is not None and unit in own.units()) or machine.status(unit).presence is not Presence.ABSENT
