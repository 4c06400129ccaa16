"""A model's units, and the number of executables on each, from `instance_group` and the parameter `units`."""

from dataclasses import dataclass

from triune.config.parameters import UNITS_PARAMETER
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Presence, Unit
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.protos.model_config_pb2 import ModelInstanceGroup
from triune.runtimes.machine import Machine

_MAX_INSTANCES = 1024


@dataclass(frozen=True, slots=True)
class Instances:
    """A model's units and executables.

    Attributes:
        units: the units, the preferred one first.
        num_instances: the number of executables on each unit.
        groups: the config's instance groups, completed.
    """

    units: tuple[Unit, ...]
    num_instances: int
    groups: tuple[ModelInstanceGroup, ...]


def read_instances(message: ModelConfigMessage, machine: Machine) -> Instances:
    """Decide a model's units and instances from `parameters` and `instance_group`.

    Raises:
        InvalidArgumentError: a unit is unknown or named twice, or a group is wrong.
        UnsupportedError: this machine lacks a unit, or an instance kind is not supported.
    """
    groups = [_complete_group(group, index, message) for index, group in enumerate(message.instance_group)]
    if not groups:
        groups = [ModelInstanceGroup(name=message.name, kind=ModelInstanceGroup.KIND_AUTO, count=1)]
    counts: dict[Unit, int] = {}
    if UNITS_PARAMETER in message.parameters:
        units = parse_units(message.parameters[UNITS_PARAMETER].string_value)
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
        machine.runtime_for(message.backend, unit, " in parameters 'units'")
    num_instances = set(counts.values())
    if len(num_instances) > 1:
        shown = ", ".join(f"{unit.value}: {count}" for unit, count in counts.items())
        raise UnsupportedError(f"instance_group asks for different counts on its units ({shown}); give them one count")
    if max(num_instances) > _MAX_INSTANCES:
        raise InvalidArgumentError(f"instance_group asks for {max(num_instances)} instances; at most {_MAX_INSTANCES}")
    return Instances(tuple(counts), num_instances.pop(), tuple(groups))


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


def parse_units(text: str) -> list[Unit]:
    """Parse the units that a parameter names, such as "cpu,amx". Raises InvalidArgumentError for an unknown or repeated
    unit.
    """
    units: list[Unit] = []
    for word in text.split(","):
        try:
            unit = Unit(word.strip().lower())
        except ValueError:
            raise InvalidArgumentError(
                f"parameter 'units' is {text!r}: {word.strip()!r} is not a unit; "
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
    # For KIND_AUTO and KIND_MODEL the backend chooses the units. An emulated unit is used only if the config names it.
    for unit in machine.runtimes[backend].units():
        if machine.status(unit).presence is Presence.PRESENT:
            return unit
    raise UnsupportedError(f"backend '{backend}' has no unit on this machine; present are {machine.present()}")


def _kind_of(unit: Unit) -> ModelInstanceGroup.Kind:
    if unit is Unit.GPU:
        return ModelInstanceGroup.KIND_GPU
    return ModelInstanceGroup.KIND_MODEL if unit is Unit.ANE else ModelInstanceGroup.KIND_CPU
