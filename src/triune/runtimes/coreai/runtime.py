"""The runtime of Core AI: assets, and ONNX models that are converted to assets. Backend "coreai".

On macOS 27 and later Core AI runs them, preferring `ane` or `gpu`, each model in its own process. For `cpu` and `amx`
the program is converted to ONNX once, and other runtimes run the ONNX model. On other systems `ane` is emulated: by the
converted model, or by Apple's interpreter.
"""

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.requests import Parameter
from triune.core.runtime import NO_OPTIONS, Executable, Runtime
from triune.core.tensors import Signature
from triune.core.units import Unit, UnitStatus
from triune.coreai.description import Description, Function, describe
from triune.coreai.executable import HOST_LIMITS, AppleExecutable
from triune.coreai.limits import largest_batch, limits_of
from triune.coreai.system import has_system_runtime
from triune.coreai.variants import merged, variants_of
from triune.graph.session import ACCURACY
from triune.hosting import HostedExecutable
from triune.runtimes.compiled_cache import CompiledCache, conversion_digest, raising_digest
from triune.runtimes.coreai.functions import FunctionExecutable, VariantsExecutable
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
        return _described(describe(path), settings)[0]

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
        signature, variants = _described(description, settings)
        if len(variants) == 1:
            return self._loaded(description, variants[0], settings, unit, num_threads, source or signature)
        with ExitStack() as undo:
            found: list[Executable] = []
            for each in variants:
                own = _signature(each, settings, asset)
                found.append(self._loaded(description, each, settings, unit, num_threads, own))
                undo.callback(found[-1].close)
            undo.pop_all()
        return VariantsExecutable(found, signature)

    def _loaded(
        self,
        description: Description,
        function: Function,
        settings: Settings,
        unit: Unit,
        num_threads: int,
        signature: Signature,
    ) -> Executable:
        """Load one function of an asset. The executable reports `signature` as its own."""
        asset = description.asset.path
        if self._is_apples(unit, settings):
            asked = unit if self._has_core_ai else None
            load = functools.partial(AppleExecutable, asset, function.name, asked, function.precision)
            host_limits = HOST_LIMITS if self._has_core_ai else replace(HOST_LIMITS, run_bytes=self._run_bytes)
            inner: Executable = HostedExecutable(load, f"'{asset}' on '{unit.value}'", limits=host_limits)
        else:
            name = f"{raising_digest(description.asset.digest, function.name)}.onnx"
            make = functools.partial(
                raise_in_process, asset, function.name, settings.conversion_seconds, self._conversion_bytes
            )
            model = self._cache.get(name, make) / MODEL
            runs_on = unit if unit in self._raised else Unit.CPU
            runtime = self._raised[runs_on]
            # Core AI computes products with quantized weights in fp32.
            exact = {ACCURACY: "1"} if ACCURACY in runtime.option_names else NO_OPTIONS
            inner = runtime.load(model, unit=runs_on, num_threads=num_threads, options=exact)
        # The ONNX model that was made of the program computes in the program's precision, except on `amx` (bf16).
        precision = inner.precision if unit is Unit.AMX else function.precision
        own = _signature(function, settings, asset)
        return FunctionExecutable(inner, unit, precision, signature, own, limits_of(description, function.name))

    def _is_apples(self, unit: Unit, settings: Settings) -> bool:
        """Whether Apple's library computes on the unit."""
        if unit not in (Unit.ANE, Unit.GPU):
            return False
        return self._has_core_ai or settings.executor == "interpreter"

    def _converted(self, path: Path, settings: Settings) -> Path:
        options = settings.lower_options()
        make = functools.partial(convert_in_process, path, options, settings.conversion_seconds, self._conversion_bytes)
        return self._cache.get(f"{conversion_digest(path, options)}.aimodel", make)


def _described(description: Description, settings: Settings) -> tuple[Signature, Sequence[Function]]:
    """The signature of a function, and the functions that compute it: one, or a variant for each shape."""
    try:
        name, variants = variants_of(description, settings.function)
    except NotFoundError as error:
        raise InvalidArgumentError(f"{error}: parameter '{FUNCTION}' may name one of them") from error
    each = [_signature(function, settings, description.asset.path) for function in variants]
    limit = 0 if variants[0].states else largest_batch(limits_of(description, name))
    return Signature(merged([one.inputs for one in each]), merged([one.outputs for one in each]), limit), variants


def _signature(function: Function, settings: Settings, path: Path) -> Signature:
    if function.states and not settings.has_explicit_states:
        names = ", ".join(f"'{each.name}'" for each in function.states)
        raise UnsupportedError(
            f"function '{function.name}' of '{path.name}' has states {names}, and requests keep none between them: "
            f"parameter '{STATES}' with the value 'explicit' has them as inputs and outputs"
        )
    if settings.has_explicit_states and not function.states:
        raise InvalidArgumentError(f"parameter '{STATES}' is for states; '{path.name}' has none: leave it out")
    if not function.states:
        return function.signature()
    whole = function.signature()
    states = {each.name for each in function.states}
    inputs = tuple(
        replace(spec, is_optional=True, is_state=True) if spec.name in states else spec for spec in whole.inputs
    )
    return Signature(inputs, whole.outputs, 0)
