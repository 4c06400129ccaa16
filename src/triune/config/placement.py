"""Where a model runs: which units, and which runtime serves each of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from triune.config.limits import DEFAULT_LIMITS, LOAD_SECONDS_PARAMETER, RUN_SECONDS_PARAMETER, ModelLimits
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.runtime import Runtime
from triune.core.units import Presence, Unit, UnitStatus
from triune.graph.precision import TOLERANCES
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.protos.model_config_pb2 import ModelInstanceGroup
from triune.runtimes.registry import is_stand_in, stand_ins

UNITS_PARAMETER = "units"
"""The config's parameter that names a model's units, "cpu,amx"; it wins over the kinds of `instance_group`."""

OWN_PROCESS_PARAMETER = "own_process"
"""The config's parameter that has each of a model's executables run in a process of its own."""

TOLERANCE_PARAMETER = "unit_tolerance"
"""The config's parameter that says how far a unit's answers may be from those of `cpu`, as a share: "0.1"."""

_LEAST_TOLERANCE = 1e-3

_MAX_INSTANCES = 1024

_DEFAULT_MAX_BATCH_SIZE = 4


@dataclass(frozen=True, slots=True)
class Completion:
    """How the configs of all models are read and completed: Triton's flags at the server's start.

    Attributes:
        default_max_batch_sizes: for models that can batch and whose config does not say, by backend, "" for all others
            (`--backend-config=BACKEND,default-max-batch-size=N`).
        is_off: a config.pbtxt must be there and say everything (`--disable-auto-complete-config`).
        config_name: models that have `configs/NAME.pbtxt` take it for their config.pbtxt (`--model-config-name`).
    """

    default_max_batch_sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    is_off: bool = False
    config_name: str = ""

    def default_max_batch_size(self, backend: str) -> int:
        """The default of a backend: its own, or that of all, or Triton's 4."""
        sizes = self.default_max_batch_sizes
        return sizes.get(backend, sizes.get("", _DEFAULT_MAX_BATCH_SIZE))


DEFAULT_COMPLETION = Completion()


@dataclass(frozen=True)
class Machine:
    """What configs are completed and models are loaded against.

    Attributes:
        runtimes: by backend name.
        units: the status of every unit.
        num_cores: CPU cores that models may use together.
        completion: how configs are completed.
        limits: what models may take that do not say it themselves.
        has_cache: answers of models whose config enables it are kept.
    """

    runtimes: Mapping[str, Runtime]
    units: Sequence[UnitStatus]
    num_cores: int
    completion: Completion = DEFAULT_COMPLETION
    limits: ModelLimits = DEFAULT_LIMITS
    has_cache: bool = False

    def status(self, unit: Unit) -> UnitStatus:
        """The status of `unit`; a unit that nobody reported is absent."""
        for each in self.units:
            if each.unit is unit:
                return each
        return UnitStatus(unit, Presence.ABSENT, reason="this system has no such unit")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs.

    Attributes:
        units: the preferred first.
        num_instances: executables per unit.
        groups: the config's instance groups, completed.
    """

    units: tuple[Unit, ...]
    num_instances: int
    groups: tuple[ModelInstanceGroup, ...]


def runtime_for(backend: str, unit: Unit, machine: Machine) -> Runtime:
    """The runtime that serves `unit` for a model of `backend`.

    The rule: the backend's own runtime wherever it reaches, else its stand-in. So `onnxruntime` with the units cpu
    and amx is served by ONNX Runtime on cpu and by OpenVINO on amx, from one ONNX file; `openvino` serves both.

    Raises:
        UnsupportedError: nothing here serves it.
    """
    own = machine.runtimes.get(backend)
    if own is not None and unit in own.units():
        return own
    names = stand_ins(backend, unit)
    able = [machine.runtimes[name] for name in names if name in machine.runtimes]
    able = [each for each in able if unit in each.units()]
    if able:
        # Core AI reaches the Neural Engine where the system has it; elsewhere it is one unit among others to it.
        return next((each for each in able if each.units()[0] is unit), able[0])
    status = machine.status(unit)
    if status.presence is Presence.ABSENT:
        raise UnsupportedError(
            f"unit '{unit.value}' is absent on this machine ({status.reason}); "
            f"present are {_present(machine)}: name one of these in parameters 'units'"
        )
    missing = [name for name in names if name not in machine.runtimes]
    if missing:
        remedies = " or ".join(f"pip install 'triune[{name}]'" for name in missing)
        raise UnsupportedError(
            f"unit '{unit.value}' of a model of backend '{backend}' is served by {' or '.join(missing)}, which is not "
            f"installed: {remedies}"
        )
    raise UnsupportedError(
        f"backend '{backend}' does not run on unit '{unit.value}' here; name another unit in parameters 'units'"
    )


def option_names(backend: str, machine: Machine) -> frozenset[str]:
    """The config's parameters that somebody here reads: the backend's runtime, or Triune itself."""
    names = {UNITS_PARAMETER, OWN_PROCESS_PARAMETER, TOLERANCE_PARAMETER, LOAD_SECONDS_PARAMETER, RUN_SECONDS_PARAMETER}
    for runtime in machine.runtimes.values():
        names.update(options_of(runtime, backend))
    return frozenset(names)


def options_of(runtime: Runtime, backend: str) -> frozenset[str]:
    """The config's parameters that `runtime` reads for a model of `backend`: a stand-in those that bear its name."""
    if runtime.name == backend:
        return frozenset(runtime.option_names)
    if not is_stand_in(runtime.name, backend):
        return frozenset()
    return frozenset(name for name in runtime.option_names if name.startswith(f"{runtime.name}."))


def read_options(parameters: Mapping[str, str], runtime: Runtime, backend: str) -> dict[str, str]:
    """Those of a config's parameters that `runtime` reads for a model of `backend`."""
    known = options_of(runtime, backend)
    return {name: value for name, value in parameters.items() if name in known}


def tolerance_of(parameters: Mapping[str, str], precision: str) -> float:
    """How far answers in a precision may be from those of `cpu`, relative to an output's largest value.

    Raises:
        InvalidArgumentError: the parameter `unit_tolerance` is no number from 0 on.
    """
    text = parameters.get(TOLERANCE_PARAMETER)
    if text is None:
        return max(TOLERANCES.get(precision, _LEAST_TOLERANCE), _LEAST_TOLERANCE)
    try:
        tolerance = float(text)
    except ValueError:
        tolerance = math.nan
    if not tolerance >= 0:
        raise InvalidArgumentError(f"parameter '{TOLERANCE_PARAMETER}' is {text!r}; write a share from 0 on, as 0.1")
    return tolerance


def place(message: ModelConfigMessage, machine: Machine) -> Placement:
    """Decide a model's units and instances from `parameters` and `instance_group`.

    Raises:
        InvalidArgumentError: a unit is unknown or named twice, or a group is wrong.
        UnsupportedError: a unit is not here, or a kind of group is not honoured.
    """
    groups = [_complete_group(group, index, message) for index, group in enumerate(message.instance_group)]
    if not groups:
        groups = [ModelInstanceGroup(name=message.name, kind=ModelInstanceGroup.KIND_AUTO, count=1)]
    counts: dict[Unit, int] = {}
    if UNITS_PARAMETER in message.parameters:
        units = _parse_units(message.parameters[UNITS_PARAMETER].string_value)
        counts = dict.fromkeys(units, sum(group.count for group in groups))
    for group in groups:
        if UNITS_PARAMETER in message.parameters:
            if group.kind == ModelInstanceGroup.KIND_AUTO:
                group.kind = _kind_of(next(iter(counts)))
            continue
        unit = _unit_of(group, message.backend, machine)
        group.kind = _kind_of(unit)
        counts[unit] = counts.get(unit, 0) + group.count
    for unit in counts:
        runtime_for(message.backend, unit, machine)
    num_instances = set(counts.values())
    if len(num_instances) > 1:
        shown = ", ".join(f"{unit.value}: {count}" for unit, count in counts.items())
        raise UnsupportedError(f"instance_group asks for different counts on its units ({shown}); give them one count")
    if max(num_instances) > _MAX_INSTANCES:
        raise InvalidArgumentError(f"instance_group asks for {max(num_instances)} instances; at most {_MAX_INSTANCES}")
    return Placement(tuple(counts), num_instances.pop(), tuple(groups))


def threads_per_executable(num_units: int, num_instances: int, num_cores: int) -> int:
    """CPU threads for each executable of a model, so that its units do not fight over cores; at least 1."""
    return max(1, num_cores // (num_units * num_instances))


def _complete_group(given: ModelInstanceGroup, index: int, message: ModelConfigMessage) -> ModelInstanceGroup:
    group = ModelInstanceGroup()
    group.CopyFrom(given)
    group.name = group.name or f"{message.name}_{index}"
    what = f"instance group {group.name} of model {message.name}"
    if group.count < 0:
        raise InvalidArgumentError(f"{what} has count {group.count}; it must be at least 1")
    group.count = group.count or 1
    if group.gpus and group.kind in (ModelInstanceGroup.KIND_CPU, ModelInstanceGroup.KIND_MODEL):
        kind = ModelInstanceGroup.Kind.Name(group.kind)
        raise InvalidArgumentError(f"{what} has kind {kind} but specifies one or more GPUs")
    if any(each != 0 for each in group.gpus):
        raise UnsupportedError(f"{what} specifies gpus {list(group.gpus)}; this machine's only gpu is 0")
    if group.profile:
        raise InvalidArgumentError(f"{what} specifies profile, which is only supported for TensorRT models")
    if group.passive:
        raise UnsupportedError(f"{what} is passive: this version serves with every instance; remove 'passive'")
    if group.secondary_devices:
        raise UnsupportedError(f"{what} specifies secondary_devices (NVDLA), which no Triune unit is; remove them")
    return group


def _parse_units(text: str) -> list[Unit]:
    units: list[Unit] = []
    for word in text.split(","):
        try:
            unit = Unit(word.strip().lower())
        except ValueError:
            raise InvalidArgumentError(
                f"parameter 'units' is {text!r}: {word.strip()!r} is no unit; "
                f"write a list of {', '.join(each.value for each in Unit)}, such as 'cpu,amx'"
            ) from None
        if unit in units:
            raise InvalidArgumentError(f"parameter 'units' is {text!r}: '{unit.value}' is named twice")
        units.append(unit)
    return units


def _unit_of(group: ModelInstanceGroup, backend: str, machine: Machine) -> Unit:
    if group.kind == ModelInstanceGroup.KIND_CPU:
        return Unit.CPU
    if group.kind == ModelInstanceGroup.KIND_GPU:
        status = machine.status(Unit.GPU)
        if status.presence is Presence.PRESENT:
            return Unit.GPU
        raise UnsupportedError(
            f"instance group {group.name} has kind KIND_GPU but no GPUs are available ({status.reason}); "
            "use KIND_CPU, or name units in parameters 'units'"
        )
    # KIND_AUTO, and KIND_MODEL, where the model's backend decides. An emulated unit serves only when asked by name.
    for unit in machine.runtimes[backend].units():
        if machine.status(unit).presence is Presence.PRESENT:
            return unit
    raise UnsupportedError(f"backend '{backend}' has no unit on this machine; present are {_present(machine)}")


def _kind_of(unit: Unit) -> ModelInstanceGroup.Kind:
    if unit is Unit.GPU:
        return ModelInstanceGroup.KIND_GPU
    return ModelInstanceGroup.KIND_MODEL if unit is Unit.ANE else ModelInstanceGroup.KIND_CPU


def _present(machine: Machine) -> str:
    return ", ".join(each.unit.value for each in machine.units if each.presence is not Presence.ABSENT) or "none"
