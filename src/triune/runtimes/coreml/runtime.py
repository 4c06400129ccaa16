"""The runtime of Core ML: packages, and ONNX models that are converted to packages. Backend "coreml".

On Apple's systems Core ML runs them on `ane`, `gpu` and `amx`, each in a separate process, since coremltools holds the
GIL while it predicts. On other systems `ane` is emulated: ONNX Runtime runs the same program in the same precision. On
`cpu` ONNX Runtime runs them on all systems, in fp32 whatever the program's precision.
"""

import functools
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.executor import Executor
from triune.core.requests import Parameter
from triune.core.runtime import NO_OPTIONS, Executable
from triune.core.tensors import Signature
from triune.core.units import Presence, Unit, UnitStatus
from triune.coreml.apple import AppleExecutor
from triune.coreml.compiled import METADATA, read_compiled
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import Package, read_package
from triune.coreml.signature import compiled_signature
from triune.coreml.source import read_source
from triune.hosting import FAULT_LIMITS, HostedExecutable
from triune.runtimes.compiled_cache import CompiledCache, conversion_digest, package_digest
from triune.runtimes.coreml.conversion import Convert, convert_in_process
from triune.runtimes.coreml.executables import CompiledExecutable, PackageExecutable
from triune.runtimes.coreml.options import OPTION_NAMES, Settings, read_settings
from triune.runtimes.coreml.report import compute_plan_report
from triune.runtimes.coreml.tensors import signature_of
from triune.runtimes.onnx.file import read_signature
from triune.runtimes.served import coreml_units

COMPUTE_UNITS: Mapping[Unit, str] = {Unit.ANE: "CPU_AND_NE", Unit.GPU: "CPU_AND_GPU", Unit.AMX: "CPU_ONLY"}
"""coremltools' name for each unit. All of them include the CPU, for operations that the unit does not support."""

_ONNX = ".onnx"
_COMPILED = ".mlmodelc"


class CoreMl:
    """Core ML, and its emulation on systems without it.

    Options: for packages `coreml.function` (the function's name), `coreml.states` (explicit: states become inputs and
    outputs) and `coreml.executor` (for an emulated unit: onnxruntime, or the slow reference), and for ONNX models
    `coreml.precision` (fp16, fp32), `coreml.layout` (ane, source), `coreml.target` (iOS18), `coreml.shapes`
    ("x=1,1..512;y=1,128|1,512"), `coreml.max_batch_size`, `coreml.conversion_seconds`.
    """

    name = "coreml"
    option_names = OPTION_NAMES
    default_filenames = ("model.mlpackage", "model.mlmodelc", "model.onnx")

    def __init__(
        self,
        units: Sequence[UnitStatus],
        cache: CompiledCache | None = None,
        preparation: str = "",
        convert: Convert = convert_in_process,
        run_bytes: int | None = None,
    ) -> None:
        """Args:
        units: this machine's units, from `hardware.units.detect_units`.
        cache: the cache of converted and compiled models; None takes the user's cache folder.
        preparation: a module that each worker process imports first; `triune.coreml.anywhere` stands in for Core ML.
        convert: converts an ONNX model to a package; can be pickled.
        run_bytes: the memory limit of a run without Core ML; None sets no limit.
        """
        self._statuses = {status.unit: status for status in units}
        self._cache = cache or CompiledCache()
        self._preparation = preparation
        self._convert = convert
        self._run_bytes = run_bytes

    def units(self) -> Sequence[Unit]:
        """The units of Core ML, or, on systems without Core ML, the emulated Neural Engine; then the CPU."""
        return coreml_units(tuple(self._statuses.values()))

    def inspect(self, path: Path, options: Mapping[str, Parameter] = NO_OPTIONS) -> Signature:
        """The signature of a package's function, or of an ONNX file without its optional inputs.

        Raises:
            InvalidArgumentError: the file is not a package, is malformed, or an option does not apply to it.
            UnsupportedError: the function has inputs or outputs that are not tensors, or states that are not explicit.
        """
        return self._signature(path, read_settings(options))

    def _signature(self, path: Path, settings: Settings) -> Signature:
        if path.suffix == _ONNX:
            settings.check_for_onnx(path)
            signature = read_signature(path)
            return replace(signature, inputs=tuple(spec for spec in signature.inputs if not spec.is_optional))
        if self._is_left_to_core_ml(path, settings):
            return compiled_signature(read_compiled(path).interface, str(path))
        return signature_of(_read(path), settings)

    def load(self, path: Path, *, unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> Executable:
        """Load a model; an ONNX file is converted first.

        Raises:
            InvalidArgumentError: the file is broken, or an option is unknown or wrong.
            UnsupportedError: this machine lacks the unit, or the model cannot be converted or run.
        """
        if unit not in self.units():
            status = self._statuses.get(unit)
            because = f": {status.reason}" if status is not None and status.reason else ""
            raise UnsupportedError(f"backend 'coreml' does not run on unit '{unit.value}' here{because}")
        settings = read_settings(options)
        signature = self._signature(path, settings)
        package_path = self._converted(path, unit, signature, settings) if path.suffix == _ONNX else path
        if unit is not Unit.CPU and self._is_present(unit):
            if self._is_left_to_core_ml(path, settings):
                load = functools.partial(_load_compiled, path, signature, unit, self._preparation)
                return HostedExecutable(load, f"'{path}' on '{unit.value}'")
            load = functools.partial(
                _load_in_core_ml,
                package_path,
                signature,
                unit,
                function=settings.function,
                is_converted=package_path != path,
                cache=self._cache,
                preparation=self._preparation,
            )
            return HostedExecutable(load, f"'{path}' on '{unit.value}'")
        return self._load_here(path, package_path, signature, unit, num_threads, settings, is_own_process=False)

    def _load_here(
        self,
        path: Path,
        package_path: Path,
        signature: Signature,
        unit: Unit,
        num_threads: int,
        settings: Settings,
        *,
        is_own_process: bool,
    ) -> Executable:
        """Load a package without Core ML. `is_own_process` says that this is already a separate process for the
        model.
        """
        host = functools.partial(self._hosted, path, package_path, signature, unit, num_threads, settings)
        is_interpreted = settings.executor == "reference" and unit is not Unit.CPU
        if is_interpreted and not is_own_process:
            # Run Triune's interpreter in a separate process, which has a memory limit: numpy, in which it computes, has
            # none.
            return host()
        # Map the weights only for the interpreter: ONNX Runtime copies them when the model is loaded.
        package = _read(package_path, maps_weights=not is_interpreted)
        executor: Executor
        is_steady = False
        if is_interpreted:
            from triune.coreml.interpreter import Interpreter

            executor = Interpreter(package, settings.function)
        else:
            executor = OnnxExecutor(
                package,
                settings.function,
                num_threads=num_threads,
                is_widened=unit is Unit.CPU,
                run_bytes=None if is_own_process else self._run_bytes,
            )
            if (executor.crash_risk or not executor.is_steady) and not is_own_process:
                del executor, package
                return host()
            is_steady = executor.is_steady
        source = read_source(package) if package_path != path else None
        function = settings.function
        return PackageExecutable(
            package,
            executor,
            unit,
            signature,
            function=function,
            source=source,
            is_steady=is_steady,
            report=f"{'the reference interpreter' if is_interpreted else 'ONNX Runtime'} in place of Core ML",
        )

    def _hosted(
        self,
        path: Path,
        package_path: Path,
        signature: Signature,
        unit: Unit,
        num_threads: int,
        settings: Settings,
    ) -> HostedExecutable:
        """Load a package without Core ML in a process of its own, which limits the memory of runs."""
        load = functools.partial(
            self._load_here, path, package_path, signature, unit, num_threads, settings, is_own_process=True
        )
        limits = replace(FAULT_LIMITS, run_bytes=self._run_bytes)
        return HostedExecutable(load, f"'{path}' on '{unit.value}'", limits=limits)

    def _is_present(self, unit: Unit) -> bool:
        status = self._statuses.get(unit)
        return status is not None and status.presence is Presence.PRESENT

    def _is_left_to_core_ml(self, path: Path, settings: Settings) -> bool:
        """Whether only Core ML reads the program. Options about functions or states require that Triune reads it."""
        is_compiled = path.suffix == _COMPILED and (path / METADATA).exists()
        return is_compiled and self._is_present(Unit.ANE) and not settings.is_of_programs

    def _converted(self, path: Path, unit: Unit, signature: Signature, settings: Settings) -> Path:
        options = settings.lower_options(signature, str(path), unit)
        name = f"{conversion_digest(path, options)}.mlpackage"
        return self._cache.get(name, lambda target: self._convert(path, target, options, settings.conversion_seconds))


def _load_compiled(path: Path, signature: Signature, unit: Unit, preparation: str) -> CompiledExecutable:
    """Load a compiled model, which only Core ML can read. This runs in the worker process."""
    if preparation:
        importlib.import_module(preparation)
    import coremltools

    library: Any = coremltools
    try:
        model = library.models.CompiledMLModel(str(path), library.ComputeUnit[COMPUTE_UNITS[unit]])
    # Catch Exception, since coremltools raises it directly, and no subclass of it.
    except Exception as error:
        raise InvalidArgumentError(f"Core ML refuses '{path}': {error}") from error
    report = compute_plan_report(path, COMPUTE_UNITS[unit])
    return CompiledExecutable(model, unit, read_compiled(path).precision, signature, report)


def _read(path: Path, *, maps_weights: bool = True) -> Package:
    if not path.exists():
        raise InvalidArgumentError(f"'{path}' cannot be read: there is no such file or folder")
    return read_package(path, maps_weights=maps_weights)


def _load_in_core_ml(
    path: Path,
    signature: Signature,
    unit: Unit,
    *,
    function: str | None,
    is_converted: bool,
    cache: CompiledCache,
    preparation: str,
) -> PackageExecutable:
    """Compile the package, unless the cache has it, and load it with Core ML. This runs in the worker process."""
    if preparation:
        importlib.import_module(preparation)
    package = read_package(path)
    compiled = path
    if path.suffix != _COMPILED:
        compiled = cache.get(f"{package_digest(path)}{_COMPILED}", functools.partial(_compile, path))
    executor = AppleExecutor(package, function, compute_units=COMPUTE_UNITS[unit], compiled=compiled)
    source = read_source(package) if is_converted else None
    report = compute_plan_report(compiled, COMPUTE_UNITS[unit])
    return PackageExecutable(package, executor, unit, signature, function=function, source=source, report=report)


def _compile(path: Path, target: Path) -> None:
    import coremltools

    library: Any = coremltools
    try:
        library.models.utils.compile_model(str(path), str(target))
    # Catch Exception, since coremltools raises it directly, and no subclass of it.
    except Exception as error:
        raise InvalidArgumentError(f"Core ML does not compile '{path}': {error}") from error
