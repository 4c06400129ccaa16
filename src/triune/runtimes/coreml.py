"""Core ML: packages, and ONNX models that are converted to packages. Backend "coreml".

On Apple's systems Core ML runs them, on `ane`, `gpu` and `amx`, each in a process of its own: coremltools holds the GIL
while it predicts. Elsewhere `ane` is emulated: the same program in the same precision, run by ONNX Runtime. On `cpu`
ONNX Runtime runs them everywhere, in fp32 whatever the program says.
"""

import functools
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError
from triune.core.executor import Executor
from triune.core.requests import Parameter
from triune.core.runtime import Executable
from triune.core.tensors import Signature
from triune.core.units import Presence, Unit, UnitStatus
from triune.coreml.apple import AppleExecutor
from triune.coreml.compiled import METADATA, read_compiled
from triune.coreml.lowering.lower import SOURCE_KEY, lower
from triune.coreml.model import Model
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import Package, read_package
from triune.graph.load import load as load_onnx
from triune.hosting import HostedExecutable
from triune.runtimes.coreml_cache import CompiledCache, conversion_digest, package_digest
from triune.runtimes.coreml_options import OPTION_NAMES, Settings, read_settings
from triune.runtimes.coreml_tensors import compiled_signature, precision_of, signature_of, to_output
from triune.runtimes.failures import run_failure
from triune.runtimes.onnx_file import read_signature

COMPUTE_UNITS: Mapping[Unit, str] = {Unit.ANE: "CPU_AND_NE", Unit.GPU: "CPU_AND_GPU", Unit.AMX: "CPU_ONLY"}
"""What coremltools calls a unit of Apple's: the CPU is always among them, for what the unit does not do."""

_ONNX = ".onnx"
_COMPILED = ".mlmodelc"


class CoreMl:
    """Core ML, and Triune's runtime of Core ML programs where it is not.

    Options: `coreml.executor` (of an emulated unit: onnxruntime, or reference, which is slow), and for ONNX models
    `coreml.precision` (fp16, fp32), `coreml.target` (iOS18), `coreml.shapes` ("x=1,1..512;y=1,128|1,512"),
    `coreml.max_batch_size`.
    """

    name = "coreml"
    option_names = OPTION_NAMES
    default_filenames = ("model.mlpackage", "model.mlmodelc", "model.onnx")

    def __init__(self, units: Sequence[UnitStatus], cache: CompiledCache | None = None, preparation: str = "") -> None:
        """Args:
        units: this machine's, as `hardware.units.detect_units` tells them.
        cache: keeps what is converted and compiled; None takes the user's.
        preparation: a module that each worker process imports first; `triune.coreml.anywhere` stands in for Core ML.
        """
        self._statuses = {status.unit: status for status in units}
        self._cache = cache or CompiledCache()
        self._preparation = preparation

    def units(self) -> Sequence[Unit]:
        """Core ML's units as far as they are here, then the CPU. Elsewhere the emulated Neural Engine, then the CPU."""
        if self._is_present(Unit.ANE):
            return (*(unit for unit in COMPUTE_UNITS if self._is_present(unit)), Unit.CPU)
        ane = self._statuses.get(Unit.ANE)
        is_emulated = ane is not None and ane.presence is Presence.EMULATED
        return (Unit.ANE, Unit.CPU) if is_emulated else (Unit.CPU,)

    def inspect(self, path: Path) -> Signature:
        """The signature of a package's default function, or of an ONNX file without its optional inputs.

        Raises:
            InvalidArgumentError: it is no package, or malformed.
            UnsupportedError: it is none that requests can be made of.
        """
        if path.suffix == _ONNX:
            signature = read_signature(path)
            return Signature(tuple(spec for spec in signature.inputs if not spec.is_optional), signature.outputs)
        if self._is_for_core_ml_only(path):
            return compiled_signature(read_compiled(path).interface, str(path))
        return signature_of(_read(path))

    def load(self, path: Path, *, unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> Executable:
        """Convert if it is ONNX, and load.

        Raises:
            InvalidArgumentError: the file is broken, or an option is unknown or wrong.
            UnsupportedError: the unit is not here, or the model cannot be converted or run.
        """
        if unit not in self.units():
            status = self._statuses.get(unit)
            because = f": {status.reason}" if status is not None and status.reason else ""
            raise UnsupportedError(f"backend 'coreml' does not run on unit '{unit.value}' here{because}")
        settings = read_settings(options)
        signature = self.inspect(path)
        package_path = self._converted(path, signature, settings) if path.suffix == _ONNX else path
        if unit is not Unit.CPU and self._is_present(unit):
            if self._is_for_core_ml_only(path):
                load = functools.partial(_load_compiled, path, signature, unit, self._preparation)
                return HostedExecutable(load, f"'{path}' on '{unit.value}'")
            load = functools.partial(_load_in_core_ml, package_path, signature, unit, self._cache, self._preparation)
            return HostedExecutable(load, f"'{path}' on '{unit.value}'")
        package = _read(package_path)
        executor: Executor
        if settings.executor == "reference" and unit is not Unit.CPU:
            from triune.coreml.interpreter import Interpreter

            executor = Interpreter(package, None)
        else:
            executor = OnnxExecutor(package, num_threads=num_threads, is_widened=unit is Unit.CPU)
        return _CoreMlExecutable(package, executor, unit, signature)

    def _is_present(self, unit: Unit) -> bool:
        status = self._statuses.get(unit)
        return status is not None and status.presence is Presence.PRESENT

    def _is_for_core_ml_only(self, path: Path) -> bool:
        return path.suffix == _COMPILED and self._is_present(Unit.ANE) and (path / METADATA).exists()

    def _converted(self, path: Path, signature: Signature, settings: Settings) -> Path:
        options = settings.lower_options(signature, str(path))
        name = f"{conversion_digest(path, options)}.mlpackage"
        return self._cache.get(name, lambda target: lower(load_onnx(path), target, options))


class _CoreMlExecutable:
    """A model, and the names that its package has for the tensors of the signature."""

    def __init__(self, package: Package, executor: Executor, unit: Unit, signature: Signature) -> None:
        self.unit = unit
        # Fp32 on the CPU is what the others are measured against.
        self.precision = "fp32" if unit is Unit.CPU else precision_of(package)
        self.signature = signature
        self._model = Model(package, executor=executor)
        source: Any = json.loads(package.description.metadata.get(SOURCE_KEY, "null"))
        # A package that is served as such is known by its own names; one that was converted here by its source's.
        sources: dict[str, Any] = source["inputs"] | source["outputs"] if source else {}
        names = {entry["source"]: name for name, entry in sources.items()}
        self._inputs = {spec.name: names.get(spec.name, spec.name) for spec in signature.inputs}
        self._outputs = {spec.name: (names.get(spec.name, spec.name), spec) for spec in signature.outputs}
        self._scalars = {entry["source"] for entry in sources.values() if entry.get("rank") == 0}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        unknown = sorted(inputs.keys() - self._inputs.keys())
        if unknown:
            raise InvalidArgumentError(f"the model has no input '{unknown[0]}'; it has {', '.join(self._inputs)}")
        given = {self._inputs[name]: array if array.ndim else array.reshape(1) for name, array in inputs.items()}
        try:
            answers = self._model.predict(given)
        except TriuneError:
            raise
        except Exception as error:
            raise run_failure(error) from error
        found: dict[str, Array] = {}
        for name in outputs:
            package_name, spec = self._outputs[name]
            found[name] = to_output(spec, answers[package_name], is_scalar=name in self._scalars)
        return found

    def close(self) -> None:
        del self._model


class _CompiledExecutable:
    """A compiled model in Core ML."""

    def __init__(self, model: Any, unit: Unit, precision: str, signature: Signature) -> None:
        self.unit = unit
        self.precision = precision
        self.signature = signature
        self._model = model
        self._outputs = {spec.name: spec for spec in signature.outputs}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        try:
            answers = self._model.predict(dict(inputs))
        except TriuneError:
            raise
        except Exception as error:
            raise run_failure(error) from error
        return {name: to_output(self._outputs[name], answers[name]) for name in outputs}

    def close(self) -> None:
        del self._model


def _load_compiled(path: Path, signature: Signature, unit: Unit, preparation: str) -> _CompiledExecutable:
    """In the worker process: what only Core ML reads, loaded by it."""
    if preparation:
        importlib.import_module(preparation)
    import coremltools

    library: Any = coremltools
    try:
        model = library.models.CompiledMLModel(str(path), library.ComputeUnit[COMPUTE_UNITS[unit]])
    # coremltools raises Exception itself.
    except Exception as error:
        raise InvalidArgumentError(f"Core ML refuses '{path}': {error}") from error
    return _CompiledExecutable(model, unit, read_compiled(path).precision, signature)


def _read(path: Path) -> Package:
    if not path.exists():
        raise InvalidArgumentError(f"'{path}' cannot be read: there is no such file or folder")
    return read_package(path)


def _load_in_core_ml(
    path: Path, signature: Signature, unit: Unit, cache: CompiledCache, preparation: str
) -> _CoreMlExecutable:
    """In the worker process: the package compiled, once, and loaded by Core ML. What is compiled is taken as it is."""
    if preparation:
        importlib.import_module(preparation)
    package = read_package(path)
    compiled = path
    if path.suffix != _COMPILED:
        compiled = cache.get(f"{package_digest(path)}{_COMPILED}", functools.partial(_compile, path))
    executor = AppleExecutor(package, compute_units=COMPUTE_UNITS[unit], compiled=compiled)
    return _CoreMlExecutable(package, executor, unit, signature)


def _compile(path: Path, target: Path) -> None:
    import coremltools

    library: Any = coremltools
    try:
        library.models.utils.compile_model(str(path), str(target))
    # coremltools raises Exception itself.
    except Exception as error:
        raise InvalidArgumentError(f"Core ML does not compile '{path}': {error}") from error
