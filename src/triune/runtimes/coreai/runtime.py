"""The runtime of Core AI: assets, and ONNX models that are converted to assets. Backend "coreai".

On macOS 27 and later Core AI runs them, preferring `ane` or `gpu`, each model in its own process. For `cpu` and `amx`
the program is converted to ONNX once, and other runtimes run the ONNX model. On other systems `ane` is emulated: by the
converted model, or by Apple's interpreter.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.requests import Parameter
from triune.core.runtime import NO_OPTIONS, Executable, Runtime
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit, UnitStatus
from triune.coreai.description import Description, Function, describe
from triune.coreai.executable import HOST_LIMITS, AppleExecutable
from triune.coreai.limits import Limits, check_limits, largest_batch, limits_of
from triune.coreai.system import has_system_runtime
from triune.hosting import HostedExecutable
from triune.runtimes.compiled_cache import CompiledCache, conversion_digest, raising_digest
from triune.runtimes.coreai.options import FUNCTION, OPTION_NAMES, STATES, Settings, read_settings
from triune.runtimes.coreai.work import MODEL, convert_in_process, raise_in_process
from triune.runtimes.onnx.file import read_signature
from triune.runtimes.served import coreai_units

_ONNX = ".onnx"


class CoreAi:
    """Core AI, and its emulation on systems without it.

    Options: for assets `coreai.function` (the function's name), `coreai.states` (explicit: states become inputs
    and outputs) and `coreai.executor` (for an emulated unit: onnxruntime, or Apple's slow interpreter), and for ONNX
    models `coreai.precision` (fp16, fp32), `coreai.shapes` ("x=1,1..512") and `coreai.conversion_seconds`.
    """

    name = "coreai"
    option_names = OPTION_NAMES
    default_filenames = ("model.aimodel", "model.onnx")

    def __init__(
        self,
        units: Sequence[UnitStatus],
        raised: Mapping[Unit, Runtime],
        cache: CompiledCache | None = None,
        *,
        has_core_ai: bool | None = None,
        conversion_bytes: int | None = None,
        run_bytes: int | None = None,
    ) -> None:
        """Args:
        units: this machine's units, from `hardware.units.detect_units`.
        raised: for each unit, the runtime that runs ONNX models made from assets; `cpu` is among the units.
        cache: the cache of converted models; None takes the user's cache folder.
        has_core_ai: whether the system has Core AI; None detects it.
        conversion_bytes: the memory limit of a conversion; None means three quarters of the machine's memory.
        run_bytes: the memory limit of a run of Apple's interpreter; None sets no limit.
        """
        self._statuses = {status.unit: status for status in units}
        self._raised = raised
        self._cache = cache or CompiledCache(name="coreai")
        self._conversion_bytes = conversion_bytes
        self._run_bytes = run_bytes
        self._has_core_ai = has_system_runtime() if has_core_ai is None else has_core_ai

    def units(self) -> Sequence[Unit]:
        """The units of Core AI, if the system has it; the units of the runtimes that run ONNX models made from assets;
        and the emulated Neural Engine.
        """
        return coreai_units(tuple(self._statuses.values()), self._raised, has_core_ai=self._has_core_ai)

    def inspect(self, path: Path, options: Mapping[str, Parameter] = NO_OPTIONS) -> Signature:
        """The signature of an asset's function, or of an ONNX file.

        Raises:
            NotFoundError: there is no such file.
            InvalidArgumentError: the file is broken, or an option does not apply to it.
            UnsupportedError: the function has inputs or outputs that are not tensors.
        """
        settings = read_settings(options)
        if path.suffix == _ONNX:
            return read_signature(path)
        description = describe(path)
        function = _function(description, settings)
        return _signature(function, settings, path, limits_of(description, function.name))

    def load(self, path: Path, *, unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> Executable:
        """Load a model; an ONNX file is converted first.

        Raises:
            InvalidArgumentError: the file is broken, or an option is unknown or wrong.
            UnsupportedError: this machine lacks the unit, or the model cannot be converted or run.
        """
        if unit not in self.units():
            raise UnsupportedError(
                f"backend 'coreai' does not run on unit '{unit.value}' here; it runs on "
                f"{', '.join(each.value for each in self.units())}"
            )
        settings = read_settings(options)
        source = read_signature(path) if path.suffix == _ONNX else None
        asset = self._converted(path, settings) if path.suffix == _ONNX else path
        description = describe(asset)
        function = _function(description, settings)
        limits = limits_of(description, function.name)
        signature = _signature(function, settings, asset, limits)
        if self._is_apples(unit, settings):
            asked = unit if self._has_core_ai else None
            load = functools.partial(AppleExecutable, asset, function.name, asked, function.precision)
            host_limits = HOST_LIMITS if self._has_core_ai else replace(HOST_LIMITS, run_bytes=self._run_bytes)
            inner: Executable = HostedExecutable(load, f"'{path}' on '{unit.value}'", limits=host_limits)
        else:
            name = f"{raising_digest(description.asset.digest, function.name)}.onnx"
            make = functools.partial(
                raise_in_process, asset, function.name, settings.conversion_seconds, self._conversion_bytes
            )
            model = self._cache.get(name, make) / MODEL
            runs_on = unit if unit in self._raised else Unit.CPU
            inner = self._raised[runs_on].load(model, unit=runs_on, num_threads=num_threads, options=NO_OPTIONS)
        # The ONNX model that was made of the program computes in the program's precision, except on `amx` (bf16).
        precision = inner.precision if unit is Unit.AMX else function.precision
        return FunctionExecutable(inner, unit, precision, source or signature, signature, limits)

    def _is_apples(self, unit: Unit, settings: Settings) -> bool:
        """Whether Apple's library computes on the unit."""
        if unit not in (Unit.ANE, Unit.GPU):
            return False
        return self._has_core_ai or settings.executor == "interpreter"

    def _converted(self, path: Path, settings: Settings) -> Path:
        options = settings.lower_options()
        make = functools.partial(convert_in_process, path, options, settings.conversion_seconds, self._conversion_bytes)
        return self._cache.get(f"{conversion_digest(path, options)}.aimodel", make)


class FunctionExecutable:
    """A function of an asset, with tensors in the names and datatypes of the server's signature.

    A state is an input (zeros if it is left out) and an output: nothing is kept between calls.
    """

    def __init__(
        self,
        inner: Executable,
        unit: Unit,
        precision: str,
        signature: Signature,
        function: Signature,
        limits: Mapping[str, Limits],
    ) -> None:
        """Args:
        inner: the executable that computes the function; its tensors have the function's names.
        unit, precision, signature: what this executable reports as its own. If the asset was converted from an ONNX
            model, `signature` is that of the ONNX model.
        function: the function's description.
        limits: the shapes that its inputs may have, by name; others may have any that fit `function`.
        """
        self.unit = unit
        self.is_steady = inner.is_steady
        self.precision = precision
        self.signature = signature
        self.report = inner.report
        self._inner = inner
        self._given = {spec.name: spec for spec in function.inputs}
        self._limits = limits
        self._wanted = {spec.name: spec for spec in signature.outputs}
        # An ONNX model made from a program names an output "NAME/output" if an input is called NAME
        # (`coreai.raising.function`).
        inner_outputs = {spec.name for spec in inner.signature.outputs}
        self._inner_names = {name: name if name in inner_outputs else f"{name}/output" for name in self._wanted}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute outputs: see `Executable.run`."""
        unknown = sorted(inputs.keys() - self._given.keys())
        if unknown:
            raise InvalidArgumentError(f"the model has no input '{unknown[0]}'; it has {', '.join(self._given)}")
        given: dict[str, Array] = {}
        for name, spec in self._given.items():
            if name in inputs:
                given[name] = _narrowed(name, inputs[name], spec)
                if name in self._limits:
                    check_limits(name, given[name].shape, self._limits[name])
            elif spec.is_state:
                given[name] = np.zeros(spec.shape, spec.datatype.dtype)
            else:
                raise InvalidArgumentError(f"input '{name}' is missing")
        names = self._inner_names
        found = self._inner.run(given, [names[name] for name in outputs])
        return {name: found[names[name]].astype(self._wanted[name].datatype.dtype, copy=False) for name in outputs}

    def interrupt(self) -> None:
        """Ask the running `run` to end soon, if the library can."""
        self._inner.interrupt()

    def close(self) -> None:
        """Free the executable."""
        self._inner.close()


def _narrowed(name: str, array: Array, spec: TensorSpec) -> Array:
    """Cast an input to the function's dtype. Raises InvalidArgumentError for integers that do not fit."""
    dtype = spec.datatype.dtype
    if array.dtype == dtype:
        return array
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)  # pyright: ignore[reportArgumentType,reportCallIssue,reportUnknownVariableType]
        low, high = int(limits.min), int(limits.max)  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]
        if array.min() < low or array.max() > high:
            raise InvalidArgumentError(f"input '{name}' has numbers beyond {spec.datatype.value}, {low} to {high}")
    return array.astype(dtype)


def _function(description: Description, settings: Settings) -> Function:
    functions = {each.name: each for each in description.functions}
    wanted = settings.function or ("main" if "main" in functions or len(functions) != 1 else next(iter(functions)))
    if wanted not in functions:
        known = ", ".join(f"'{name}'" for name in functions) or "none"
        raise InvalidArgumentError(
            f"'{description.asset.path.name}' has no function '{wanted}': parameter '{FUNCTION}' may name {known}"
        )
    return functions[wanted]


def _signature(function: Function, settings: Settings, path: Path, limits: Mapping[str, Limits]) -> Signature:
    if function.states and not settings.has_explicit_states:
        names = ", ".join(f"'{each.name}'" for each in function.states)
        raise UnsupportedError(
            f"function '{function.name}' of '{path.name}' has states {names}, and requests keep none between them: "
            f"parameter '{STATES}' with the value 'explicit' has them as inputs and outputs"
        )
    if settings.has_explicit_states and not function.states:
        raise InvalidArgumentError(f"parameter '{STATES}' is for states; '{path.name}' has none: leave it out")
    if not function.states:
        return replace(function.signature(), max_batch_size=largest_batch(limits))
    whole = function.signature()
    states = {each.name for each in function.states}
    inputs = tuple(
        replace(spec, is_optional=True, is_state=True) if spec.name in states else spec for spec in whole.inputs
    )
    return Signature(inputs, whole.outputs, 0)
