"""The axes of a tuning: the fields of a model's config that it may change, and their values."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from triune.config.instances import parse_units
from triune.config.model_config import ModelConfig
from triune.config.optimization import OPTIMIZATION_PARAMETER
from triune.config.parameters import UNITS_PARAMETER, options_of
from triune.core.errors import UnsupportedError
from triune.core.runtime import Runtime
from triune.core.units import Presence, Unit
from triune.graph.optimizing.level import Level
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.runtimes.machine import Machine

Candidate: TypeAlias = tuple[str, ...]
"""One value for each axis, in the order of the axes."""

UNITS: Final = "units"
INSTANCES: Final = "instances"
MAX_BATCH_SIZE: Final = "max_batch_size"
DELAY: Final = "max_queue_delay_microseconds"
PREFERRED: Final = "preferred_batch_size"

OFF: Final = "off"
"""The value of DELAY for a model without dynamic batching: each request runs alone."""
NONE: Final = "none"
"""The value of an axis that the config does not set."""

_BATCH_SIZES: Final = (1, 4, 8, 16, 32, 64)
_DELAYS_US: Final = (0, 500, 2000, 5000)
_MAX_INSTANCES: Final = 8
_THREADS: Final = {"onnxruntime": "intra_op_thread_count", "openvino": "INFERENCE_NUM_THREADS"}
"""The option that sets the number of threads, by backend."""
_PRECISIONS: Final[Mapping[str, Sequence[str]]] = {
    "mlx.precision": ("source", "bf16", "fp16"),
    "coreml.precision": ("fp16", "fp32"),
    "coreai.precision": ("fp16", "fp32"),
}
"""The options that set the precision, with their values; the first value is the default."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting that a tuning may vary.

    Attributes:
        name: the field or parameter of config.pbtxt.
        values: its values, in the order in which they are tried; the given one is among them.
        given: the value of the given config.
        change: sets a value in a config.
    """

    name: str
    values: Sequence[str]
    given: str
    change: Callable[[ModelConfigMessage, str], None]


def axes_of(
    written: ModelConfigMessage, config: ModelConfig, machine: Machine, metered: Collection[Unit]
) -> list[Axis]:
    """The axes of a model on a machine, the most important first. An axis with one value is left out.

    Args:
        written: the config as written.
        config: the completed config.
        machine: the machine.
        metered: the units that may be tried in addition to those of the config: all units, or those whose energy is
            metered if the objective is joules.
    """
    found = [
        *([] if config.plan is not None else [_units(config, machine, metered), _instances(written, config, machine)]),
        *_batching(written, config),
        *_options(written, config, machine),
    ]
    return [axis for axis in found if len(axis.values) > 1]


def is_valid(axes: Sequence[Axis], candidate: Candidate, config: ModelConfig) -> bool:
    """Whether the values of a candidate fit each other and the model's warm-up samples."""
    values = {axis.name: value for axis, value in zip(axes, candidate, strict=True)}
    size = int(values.get(MAX_BATCH_SIZE, config.batching.max_batch_size))
    if any(sample.batch_size > max(size, 1) for sample in config.warmup):
        return False
    preferred = values.get(PREFERRED, NONE)
    if preferred == NONE:
        return True
    # Preferred batch sizes need dynamic batching, and must not exceed the batch size.
    return values.get(DELAY) != OFF and max(int(each) for each in preferred.split(",")) <= size


def changed(written: ModelConfigMessage, axes: Sequence[Axis], candidate: Candidate) -> ModelConfigMessage:
    """A copy of a config with the values of a candidate. Where the candidate has the value of the given config, the
    field is left as it is written.
    """
    message = ModelConfigMessage()
    message.CopyFrom(written)
    for axis, value in zip(axes, candidate, strict=True):
        if value != axis.given:
            axis.change(message, value)
    return message


def describe(axes: Sequence[Axis], candidate: Candidate) -> str:
    """What a candidate changes, such as "units=amx instances=2"; "the given config" for the given values."""
    pairs = zip(axes, candidate, strict=True)
    return " ".join(f"{axis.name}={value}" for axis, value in pairs if value != axis.given) or "the given config"


def _with_given(values: Sequence[str], given: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*values, given)))


def _units(config: ModelConfig, machine: Machine, metered: Collection[Unit]) -> Axis:
    """The axis of units: each present unit that a runtime serves by itself, and all of them together. An emulated unit
    is tried only if the given config names it.
    """
    present = [each.unit for each in machine.units if each.presence is Presence.PRESENT and each.unit in metered]
    usable = [unit.value for unit in present if _runtime_for(unit, config, machine) is not None]
    given = ",".join(unit.value for unit in config.units)
    together = [",".join(usable)] if len(usable) > 1 else []
    # The order of units is only a preference, so the same units in another order are not another value.
    together = [each for each in together if set(each.split(",")) != set(given.split(","))]

    def change(message: ModelConfigMessage, value: str) -> None:
        parse_units(value)
        message.parameters[UNITS_PARAMETER].string_value = value

    return Axis(UNITS, _with_given([*usable, *together], given), given, change)


def _runtime_for(unit: Unit, config: ModelConfig, machine: Machine) -> Runtime | None:
    """The runtime that serves the model on a unit; None if none does."""
    try:
        return machine.runtime_for(config.backend, unit)
    except UnsupportedError:
        return None


def _instances(written: ModelConfigMessage, config: ModelConfig, machine: Machine) -> Axis:
    given = str(config.num_instances)

    def change(message: ModelConfigMessage, value: str) -> None:
        if not message.instance_group:
            message.instance_group.add()
        message.instance_group[0].count = int(value)

    counts = [str(1 << power) for power in range(4) if 1 << power <= min(machine.num_cores, _MAX_INSTANCES)]
    # With several groups, keep the given number of instances: it is the sum of the groups, and which of them to change
    # is the user's choice.
    values = _with_given(counts, given) if len(written.instance_group) < 2 else (given,)
    return Axis(INSTANCES, values, given, change)


def _batching(written: ModelConfigMessage, config: ModelConfig) -> list[Axis]:
    size = config.batching.max_batch_size
    if not size:
        return []
    is_dynamic = config.message.HasField("dynamic_batching")

    def complete(message: ModelConfigMessage) -> None:
        # Write the batch size and dynamic batching, which completing the given config adds: after a change of other
        # fields, completion might not add them.
        message.max_batch_size = message.max_batch_size or size
        if is_dynamic:
            message.dynamic_batching.SetInParent()

    def set_size(message: ModelConfigMessage, value: str) -> None:
        complete(message)
        message.max_batch_size = int(value)

    def set_delay(message: ModelConfigMessage, value: str) -> None:
        complete(message)
        if value == OFF:
            message.ClearField("dynamic_batching")
            return
        message.dynamic_batching.SetInParent()
        message.dynamic_batching.max_queue_delay_microseconds = int(value)

    def set_preferred(message: ModelConfigMessage, value: str) -> None:
        complete(message)
        del message.dynamic_batching.preferred_batch_size[:]
        if value != NONE:
            message.dynamic_batching.preferred_batch_size.extend(int(each) for each in value.split(","))

    sizes = _with_given([str(each) for each in _BATCH_SIZES], str(size))
    given_delay = str(written.dynamic_batching.max_queue_delay_microseconds) if is_dynamic else OFF
    # Do not try OFF if the config sets priorities, the order or limits of the queue: they need dynamic batching.
    has_more = any(field.name not in (PREFERRED, DELAY) for field, _ in written.dynamic_batching.ListFields())
    delays = [*([] if has_more else [OFF]), *(str(each) for each in _DELAYS_US)]
    given_preferred = ",".join(str(each) for each in sorted(set(written.dynamic_batching.preferred_batch_size))) or NONE
    return [
        Axis(MAX_BATCH_SIZE, tuple(sorted(sizes, key=int)), str(size), set_size),
        Axis(DELAY, _with_given(delays, given_delay), given_delay, set_delay),
        Axis(PREFERRED, _with_given([NONE, "4", "8", "16"], given_preferred), given_preferred, set_preferred),
    ]


def _options(written: ModelConfigMessage, config: ModelConfig, machine: Machine) -> list[Axis]:
    axes: list[Axis] = []
    threads = _THREADS.get(config.backend)
    if threads is not None:
        counts = [str(1 << power) for power in range(7) if 1 << power <= machine.num_cores]
        axes.append(_parameter(threads, [NONE, *counts], written))
    present = [each.unit for each in machine.units if each.presence is Presence.PRESENT]
    runtimes = [_runtime_for(unit, config, machine) for unit in dict.fromkeys([*present, *config.units])]
    for runtime in {each.name: each for each in runtimes if each is not None}.values():
        known = options_of(runtime, config.backend)
        for name, values in _PRECISIONS.items():
            if name in known:
                axes.append(_parameter(name, [NONE, *values[1:]], written))
    if config.path.suffix == ".onnx" and config.plan is None:
        levels = [Level.O2.value, Level.O3.value]
        axes.append(_parameter(OPTIMIZATION_PARAMETER, [NONE, *levels], written))
    return axes


def _parameter(name: str, values: Sequence[str], written: ModelConfigMessage) -> Axis:
    given = written.parameters[name].string_value if name in written.parameters else NONE

    def change(message: ModelConfigMessage, value: str) -> None:
        if value == NONE:
            del message.parameters[name]
        else:
            message.parameters[name].string_value = value

    return Axis(name, _with_given(values, given), given, change)
