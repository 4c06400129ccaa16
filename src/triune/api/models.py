"""`triune.load`: a model on one unit, without a server."""

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from triune.api.unit_names import named_units
from triune.api.values import as_array
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.core.model import Model, needs_state
from triune.core.placement import Placement
from triune.core.requests import Parameter
from triune.core.runtime import Executable
from triune.core.state import State
from triune.core.tensors import Signature
from triune.core.units import Presence, Unit
from triune.coreai.description import describe
from triune.coreai.variants import variants_of
from triune.coreml.feature_values import classes_of
from triune.coreml.package import read_package
from triune.coreml.signature import precision_of
from triune.graph.custom import CustomOps, CustomOpsGiven, read_custom_ops
from triune.graph.state_names import new_state
from triune.runtimes.cache_holds import collecting, keep_for
from triune.runtimes.custom import resolved_file
from triune.runtimes.machine import Machine, this_machine
from triune.runtimes.registry import ROWS, backend_of, missing

_ONNX = ".onnx"
_CORE_AI = ".aimodel"


class UnitModel(Model):
    """A model on a unit. One call runs at a time; others wait.

    Attributes:
        path: the model's file.
        unit: the unit that it runs on.
        is_emulated: whether the unit is emulated. The results then have the unit's precision, but are not computed
            at its speed.
        precision: the floating-point format in which it computes: "fp32" on `cpu` for Core ML programs in fp16, too.
        states: the specifications of its states, whose buffers are in a `State`.
        placement: where each segment computes, if it was loaded with a plan; else None.
    """

    def __init__(
        self,
        path: Path,
        executable: Executable,
        *,
        is_emulated: bool,
        function: str = "main",
        classes: Sequence[Any] = (),
        is_raw: bool = False,
        placement: Placement | None = None,
        program_precision: str | None = None,
    ) -> None:
        """Args:
        path: the model's file.
        executable: the compiled model, which is closed with this model.
        is_emulated: whether the unit is emulated.
        function: the function's name.
        classes: the labels of a Core ML classifier, in the order of its probabilities.
        is_raw: whether to return labels and probabilities as tensors, as a server does.
        placement: where it computes, if it was loaded with a plan.
        program_precision: the precision of the program if the model is a Core ML or Core AI program, else None.
        """
        whole = executable.signature
        self.states: Final = tuple(spec for spec in whole.inputs if spec.is_state)
        news = {new_state(spec.name) for spec in self.states}
        self._signature: Final = Signature(
            tuple(spec for spec in whole.inputs if not spec.is_state),
            tuple(spec for spec in whole.outputs if spec.name not in news),
            whole.max_batch_size,
            whole.rows,
        )
        super().__init__(path.name, function, [spec.name for spec in self._signature.outputs])
        self.path: Final = path
        self.is_emulated: Final = is_emulated
        self.placement: Final = placement
        self.unit: Final[Unit] = executable.unit
        self.precision: Final[str] = executable.precision
        self._executable = executable
        self._program_precision = program_precision or executable.precision
        self._classes = classes
        self._is_raw = is_raw
        self._turn = threading.Lock()

    @property
    def signature(self) -> Signature:
        """The inputs and outputs, without states."""
        return self._signature

    def make_state(self) -> State:
        """Make new buffers, filled with zeros, for the model's states."""
        specs = {spec.name: spec for spec in self.states}
        arrays = {name: np.zeros(spec.shape, spec.datatype.dtype) for name, spec in specs.items()}
        return State(arrays, lambda name, value: as_array(specs[name], value, converts_arrays=True))

    def _compute(self, inputs: Mapping[str, Any], outputs: Sequence[str], state: State | None) -> dict[str, Any]:
        known = {spec.name: spec for spec in self.signature.inputs}
        unknown = sorted(inputs.keys() - known.keys())
        if unknown:
            raise InvalidArgumentError(f"the model has no input '{unknown[0]}'; it has {', '.join(known)}")
        converts = self.path.suffix != _ONNX
        arrays: dict[str, Array] = {}
        for name, spec in known.items():
            if name in inputs:
                arrays[name] = as_array(spec, inputs[name], converts_arrays=converts)
            elif not spec.is_optional:
                raise InvalidArgumentError(f"input '{name}' is missing; it is {spec}")
        if state is None:
            if self.states:
                raise needs_state([spec.name for spec in self.states])
            with self._turn:
                return self._shown(self._executable.run(arrays, list(outputs)))
        with state.lock, self._turn:
            state.check({spec.name: spec.shape for spec in self.states})
            news = [new_state(spec.name) for spec in self.states]
            found = self._executable.run({**arrays, **state.arrays}, [*outputs, *news])
            state.arrays = {spec.name: found.pop(new_state(spec.name)) for spec in self.states}
        return self._shown(found)

    def _shown(self, found: dict[str, Array]) -> dict[str, Any]:
        """Convert a classifier's label to a str or int, and its probabilities to a dictionary by label."""
        if self._is_raw or not self._classes:
            return dict(found)
        shown: dict[str, Any] = {}
        for spec in self.signature.outputs:
            if spec.name in found:
                array = found[spec.name]
                shown[spec.name] = array
                if spec.datatype is DataType.BYTES:
                    shown[spec.name] = array.ravel()[0].decode()
                elif spec.datatype is DataType.INT64:
                    shown[spec.name] = int(array.ravel()[0])
                elif spec.datatype is DataType.FP64 and spec.shape == (len(self._classes),):
                    shown[spec.name] = dict(zip(self._classes, array.tolist(), strict=True))
        return shown

    def _free(self) -> None:
        self._executable.close()

    def _location(self) -> str:
        if self.placement is not None and self.placement.is_cut:
            units = dict.fromkeys(each.unit.value for each in self.placement.segments)
            return f"cut over {' and '.join(units)} ({'emulated, ' if self.is_emulated else ''}{self.precision})"
        of = "" if self.precision == self._program_precision else f", of a program in {self._program_precision}"
        return f"on {self.unit.value} ({'emulated, ' if self.is_emulated else ''}{self.precision}{of})"

    def _interface(self) -> str:
        inputs, outputs = (", ".join(map(str, each)) for each in (self.signature.inputs, self.signature.outputs))
        return f"{inputs} -> {outputs}"


def load(
    path: Path | str,
    unit: str | Sequence[str] | None = None,
    *,
    units: Sequence[str] | None = None,
    function: str | None = None,
    options: Mapping[str, Parameter] | None = None,
    plan: str | None = None,
    chip: str | None = None,
    custom_ops: CustomOpsGiven = (),
) -> UnitModel:
    """Load a model file for one unit, or cut into segments for several.

    Args:
        path: an .onnx, .mlpackage, .mlmodelc or .aimodel.
        unit: a unit's name, "cpu", "amx", "gpu" or "ane"; or a list of them, of which the first that can run the model
            is taken. None takes the best unit of this machine; an emulated one must be named.
        units: the same as a list in `unit`; give only one of them.
        function: the function's name; None means the default function.
        options: the runtime's options, as in a config's parameters: `{"coreml.precision": "fp32"}`.
        plan: for an .onnx, the plan by which it is divided into segments: "latency", "energy", or the unit of each
            stretch of operations, such as "cpu to clip_40, amx". The model's `placement` says how it was divided. If
            `units` are given, the plan uses only these.
        chip: the chip that the plan is made for; None for this machine.
        custom_ops: custom operators (`custom_op`), or files that define them. Those without a body run on "cpu" alone.

    Raises:
        NotFoundError: there is no such file, or no such function, operation or chip.
        InvalidArgumentError: the file has another suffix or is broken, or a unit or option is unknown.
        UnsupportedError: none of the units can run it; the message gives the reason for each.
    """
    ops = read_custom_ops(custom_ops)
    if plan is not None:
        return _load_cut(Path(path), plan, chip, unit, units, function, dict(options or {}), ops)
    if chip is not None:
        raise InvalidArgumentError("a chip is named for a plan; give plan, too, or leave chip out")
    return _load(Path(path), unit, units, function, dict(options or {}), ops, is_raw=False)


def _load_cut(
    path: Path,
    plan: str,
    chip: str | None,
    unit: str | Sequence[str] | None,
    units: Sequence[str] | None,
    function: str | None,
    options: dict[str, Parameter],
    ops: CustomOps,
) -> UnitModel:
    """Load a model with a plan. Raises the errors of `load`."""
    if unit is not None:
        raise InvalidArgumentError("a plan is for several units: name those that it may use with units")
    if not path.exists():
        raise NotFoundError(f"there is no '{path}'")
    if path.suffix != _ONNX or function is not None:
        raise InvalidArgumentError(f"'{path.name}' cannot be cut: a plan is for ONNX models, which have no functions")
    # These modules are imported only if there is a plan.
    from triune.api.cutting import load_cut

    machine = this_machine(custom_ops=ops)
    named = named_units(units) if units else ()
    executable, placement = load_cut(resolved_file(path, ops), plan, chip, named, options, "onnxruntime", machine)
    is_emulated = bool(machine.emulated(each.unit for each in placement.segments))
    return UnitModel(path, executable, is_emulated=is_emulated, placement=placement)


def load_raw(path: Path, custom_ops: CustomOpsGiven = ()) -> UnitModel:
    """Load a model on the best unit, with labels and probabilities as tensors. Raises the errors of `load`."""
    return _load(path, None, None, None, {}, read_custom_ops(custom_ops), is_raw=True)


def _load(
    path: Path,
    unit: str | Sequence[str] | None,
    units: Sequence[str] | None,
    function: str | None,
    options: dict[str, Parameter],
    ops: CustomOps,
    *,
    is_raw: bool,
) -> UnitModel:
    if units is not None and unit is not None:
        raise InvalidArgumentError("give unit or units, not both")
    unit = unit if units is None else units
    if not path.exists():
        raise NotFoundError(f"there is no '{path}'")
    backend = backend_of(path.suffix)
    if backend is None:
        suffixes = ", ".join(suffix for row in ROWS for suffix in row.suffixes)
        raise InvalidArgumentError(f"'{path.name}' ends in none of {suffixes}")
    machine = this_machine(custom_ops=ops)
    if backend not in machine.runtimes:
        raise InvalidArgumentError(missing()[backend])
    if unit is None:
        own = machine.runtimes[backend].units()
        chosen = [next(each for each in own if machine.status(each).presence is Presence.PRESENT)]
    else:
        chosen = named_units([unit] if isinstance(unit, str) else unit)
    program = _read_program(path, backend, function, options)
    taken = next((each for each in chosen if _can_run(backend, each, machine)), chosen[0])
    runtime = machine.runtime_for(backend, taken)
    with collecting() as used:
        executable = runtime.load(path, unit=taken, num_threads=machine.num_cores, options=options)
        keep_for(executable, used)
    is_emulated = machine.status(taken).presence is Presence.EMULATED
    return UnitModel(
        path,
        executable,
        is_emulated=is_emulated,
        function=program.function,
        classes=program.classes,
        is_raw=is_raw,
        program_precision=program.precision,
    )


@dataclass(frozen=True, slots=True)
class _Program:
    """A function of a Core ML or Core AI program; all fields have defaults for other models.

    Attributes:
        function: its name.
        classes: the labels of a classifier.
        precision: the precision in which Apple's runtimes compute it; None if it is unknown, or if the model is not a
            program.
    """

    function: str = "main"
    classes: Sequence[Any] = ()
    precision: str | None = None


def _read_program(path: Path, backend: str, function: str | None, options: dict[str, Parameter]) -> _Program:
    """Read the function of a program. Its name is added to `options`; if it has states, so is the option that makes
    them inputs and outputs.
    """
    if path.suffix == _ONNX:
        if function is not None:
            raise InvalidArgumentError(f"'{path.name}' has no functions; leave function out")
        return _Program()
    function = function or _text(options.get(f"{backend}.function"))
    if function is not None:
        options[f"{backend}.function"] = function
    if path.suffix == _CORE_AI:
        chosen, (described, *_) = variants_of(describe(path), function)
        program = _Program(chosen)
    elif path.suffix == ".mlmodelc" and sys.platform == "darwin" and function is None:
        # Do not read the program: on macOS only Core ML itself opens it, and may support programs that Triune does not.
        return _Program()
    else:
        package = read_package(path)
        chosen = function or package.description.default_function
        described = package.description.functions.get(chosen)
        program = _Program(chosen)
        if described is not None:
            program = _Program(chosen, classes_of(package.function(chosen)), precision_of(package, chosen))
    if described is not None and described.states:
        options[f"{backend}.states"] = "explicit"
    return program


def _text(value: Parameter | None) -> str | None:
    return value if isinstance(value, str) else None


def predict(
    path: Path | str,
    inputs: Mapping[str, Any],
    unit: str | Sequence[str] | None = None,
    *,
    function: str | None = None,
) -> dict[str, Any]:
    """Load a model, run it once, and free it. States are zeros at the start.

    Args:
        path: the model file; see `load`.
        inputs: the inputs by name; see `Model.run`.
        unit: the unit to run it on; see `load`.
        function: the function's name; None means the default function.

    Raises:
        The errors of `load` and `Model.run`.
    """
    with load(path, unit, function=function) as model:
        return model.predict(inputs, model.make_state())


def _can_run(backend: str, unit: Unit, machine: Machine) -> bool:
    own = machine.runtimes.get(backend)
    return (own is not None and unit in own.units()) or machine.status(unit).presence is not Presence.ABSENT
