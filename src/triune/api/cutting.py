"""Load an ONNX file cut into segments for several units, without a server."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from triune.backends.attempt import Attempt
from triune.backends.tensor.compile import compile_one
from triune.backends.tensor.cut.make import make_cut
from triune.config.one_instance import one_instance_config
from triune.config.placement import recipe_on
from triune.config.plan import parse_plan
from triune.core.errors import InvalidArgumentError
from triune.core.placement import PlacedSegment, Placement
from triune.core.requests import Parameter
from triune.core.runtime import Executable
from triune.core.units import Unit
from triune.planning.plan import Goal
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.runtimes.machine import Machine


def load_cut(
    path: Path,
    plan: str,
    chip: str | None,
    units: Sequence[Unit],
    options: Mapping[str, Parameter],
    backend: str,
    machine: Machine,
) -> tuple[Executable, Placement]:
    """Load an ONNX model cut into segments, each on the unit that the plan names.

    Args:
        path: an .onnx file.
        plan: as in a config's parameter `plan`.
        chip: the chip to plan for; None for this machine.
        units: the units that the plan may use; empty for all.
        options: the parameters for the runtimes, as in a config.
        backend: the backend of ONNX files, whose name the runtimes' options refer to.
        machine: the machine with the runtimes.

    Returns:
        the executable, which the caller closes, and where it computes.

    Raises:
        InvalidArgumentError: the plan cannot be read, or is for throughput; or the model accepts no sample input.
        NotFoundError: an operation or chip does not exist.
        UnsupportedError: this machine lacks a unit, was not measured, or no unit runs a part of the model.
    """
    request = parse_plan(plan, chip=chip, units=tuple(units))
    if request.goal is Goal.THROUGHPUT:
        raise InvalidArgumentError(
            "a plan for throughput runs several calls at a time, as a server does (the parameter 'plan' of a config): "
            "plan for latency here"
        )
    for unit in request.named_units:
        machine.runtime_for(backend, unit)
    message = ModelConfigMessage(name=path.name, backend=backend)
    for name, value in options.items():
        message.parameters[name].string_value = str(value)
    signature = machine.runtimes[backend].inspect(path)
    first = (request.named_units or (Unit.CPU,))[0]
    config = replace(one_instance_config(message, path, signature, (first,), is_decoupled=False), plan=request)
    with ExitStack() as undo:
        made = make_cut(config, request, path.parent, machine, Attempt(), undo)
        undo.pop_all()
    if made.cut is not None:
        placement = Placement(plan, is_cut=True, segments=made.segments, notes=made.notes)
        return made.cut.open()[0], placement
    unit = made.config.units[0]
    recipe = recipe_on(unit, machine.num_cores, config, machine)
    executable = made.spare[0] if made.spare else compile_one(path, recipe, machine)
    whole = PlacedSegment(unit, recipe.runtime, executable.precision, executable.report)
    return executable, Placement(plan, is_cut=False, segments=(whole,), notes=made.notes)
