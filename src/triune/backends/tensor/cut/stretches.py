"""Divide a model into stretches: consecutive operations for one unit, from which a segment is compiled. The config
names them, or the planner chooses them.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from triune.backends.tensor.cut.graph import CutGraph
from triune.config.model_config import ModelConfig
from triune.config.plan import PlanRequest
from triune.core.errors import NotFoundError, UnsupportedError
from triune.core.units import Presence, Unit
from triune.hardware.chips import chip as chip_of
from triune.hardware.measured import machine_key
from triune.planning.candidates import Request
from triune.planning.constants import constants
from triune.planning.graph_ops import ops_of
from triune.planning.machine import target_here
from triune.planning.measured import MeasuredTime, load_times, model_key, of_shapes
from triune.planning.op import group_of
from triune.planning.planner import plan
from triune.planning.units import Target, target_of
from triune.runtimes.described import known_units, times_folder
from triune.runtimes.machine import Machine

_NUM_NAMED = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """A unit and a precision that may compute a stretch.

    Attributes:
        unit: the unit.
        is_fp32: whether the stretch computes in fp32, although the unit's own format is less precise.
    """

    unit: Unit
    is_fp32: bool = False

    def __str__(self) -> str:
        return f"{self.unit.value} in fp32" if self.is_fp32 else self.unit.value


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive nodes for one unit.

    Attributes:
        begin, end: the positions of its first node and of the node after its last one.
        choices: the units and precisions that may still compute the stretch, the preferred one first, `cpu` last.
        requested: the unit that the config names; None if the planner chose.
        planned: the unit of the plan.
        predicted_ms: the predicted time; None if nothing was predicted.
        depth: how many times a stretch was halved to get this one.
        notes: why the stretch is not on the planned unit.
    """

    begin: int
    end: int
    choices: tuple[Choice, ...]
    requested: Unit | None
    planned: Unit
    predicted_ms: float | None = None
    depth: int = 0
    notes: tuple[str, ...] = ()

    @property
    def choice(self) -> Choice:
        """The unit and precision that currently compute the stretch."""
        return self.choices[0]

    def moved(self, why: str) -> "Stretch":
        """The same stretch on the next of its `choices`, of which there must be a further one. `why` becomes a note."""
        left = self.choices[1:]
        return replace(self, choices=left, notes=(*self.notes, f"{why}; it moved to {left[0]}"))

    def halves(self, middle: int) -> tuple["Stretch", "Stretch"]:
        """The two parts of a stretch before and after the node at `middle`."""
        part = replace(self, depth=self.depth + 1, predicted_ms=None)
        return replace(part, end=middle), replace(part, begin=middle)


def stretches_of(graph: CutGraph, config: ModelConfig, request: PlanRequest, machine: Machine) -> list[Stretch]:
    """The stretches that a config names, or that the planner chooses.

    Raises:
        NotFoundError: an operation or the chip does not exist.
        InvalidArgumentError: operations are not in the graph's order, or a shape is not known.
        UnsupportedError: no plan is possible, or this machine's units were not measured.
    """
    if not request.stretches:
        return _planned(graph, config, request, machine)
    positions = {node.name: at for at, node in enumerate(graph.model.graph.node)}
    count = len(positions)
    found: list[Stretch] = []
    begin = 0
    for unit, last in request.stretches:
        if last is not None and last not in positions:
            near = get_close_matches(last, positions, _NUM_NAMED) or list(positions)[:_NUM_NAMED]
            raise NotFoundError(
                f"the plan of model '{config.name}' names the operation '{last}', and there is none; there are "
                f"{', '.join(near)} and {count - len(near)} more: `triune plan --json` lists them"
            )
        end = count if last is None else positions[last] + 1
        if end <= begin:
            what = f"'{last}' is not behind" if last is not None else "nothing is left behind"
            raise UnsupportedError(
                f"the plan of model '{config.name}' goes on after its end: {what} the stretch before; operations run "
                "in the order in which `triune plan --json` lists them"
            )
        found.append(Stretch(begin, end, _choices(unit, (), config, machine), unit, unit))
        begin = end
    return found


def _planned(graph: CutGraph, config: ModelConfig, request: PlanRequest, machine: Machine) -> list[Stretch]:
    measured: Mapping[Unit, MeasuredTime] = {}
    if request.chip is None:
        facts = known_units(machine.runtimes)
        target = target_here(facts, constants())
        kept, reason = load_times(times_folder(), model_key(config.path, machine_key(facts)))
        if reason:
            _log.warning("model '%s' is planned without measurements: %s", config.name, reason)
        measured, _ = of_shapes(kept, {name: array.shape for name, array in graph.sample.items()})
    else:
        target = target_of(chip_of(request.chip), constants())
    ops = ops_of(graph.with_sizes())
    units = request.units or _usable(target, config, machine)
    asked = Request(config.name, ops, group_of(ops), request.goal, units, measured=measured)
    made = plan(asked, target, constants())
    positions = {node.name: at for at, node in enumerate(graph.model.graph.node)}
    begins = [positions[segment.ops[0].name] for segment in made.segments]
    ends = [*begins[1:], len(positions)]
    found: list[Stretch] = []
    for segment, begin, end in zip(made.segments, [0, *begins[1:]], ends, strict=True):
        times = {
            unit: sum(op.unit_ms[unit] for op in segment.ops)
            for unit in segment.ops[0].unit_ms
            if all(unit in op.unit_ms for op in segment.ops)
        }
        others = sorted((unit for unit in times if unit is not segment.unit), key=lambda unit: times[unit])
        choices = _choices(segment.unit, others, config, machine)
        found.append(Stretch(begin, end, choices, None, segment.unit, segment.ms))
    return found


def _usable(target: Target, config: ModelConfig, machine: Machine) -> tuple[Unit, ...]:
    """The units of `target`, the chip to plan for, that can also run the model on this machine; empty if all of the
    chip's units can.

    Raises:
        UnsupportedError: this machine has none of the units.
    """
    able = [unit for unit in target.units if _can_run(unit, config, machine)]
    if not able:
        raise UnsupportedError(
            f"this machine has none of the units of {target.name}, {', '.join(unit.value for unit in target.units)}"
        )
    if len(able) == len(target.units):
        return ()
    # Leave out Apple's CPU, as the planner does: its matrix unit (`amx`) is always at least as fast.
    has_matrix_unit = target.is_scored and Unit.AMX in able
    return tuple(unit for unit in able if unit is not Unit.CPU or not has_matrix_unit)


def _can_run(unit: Unit, config: ModelConfig, machine: Machine) -> bool:
    try:
        machine.runtime_for(config.backend, unit)
    except UnsupportedError:
        return False
    return True


def _choices(unit: Unit, others: Sequence[Unit], config: ModelConfig, machine: Machine) -> tuple[Choice, ...]:
    """The units and precisions to try for a stretch (`Stretch`), in this order: `unit`; `unit` in fp32, if the runtime
    can; other units, without emulated ones; and `cpu`.
    """
    found = [Choice(unit)]
    runtime = machine.runtime_for(config.backend, unit)
    # If the unit fails in the config's precision, try it in fp32: with Core ML and Core AI every unit except the Neural
    # Engine computes in fp32.
    if runtime.name in ("coreml", "coreai") and unit not in (Unit.ANE, Unit.CPU):
        found.append(Choice(unit, is_fp32=True))
    for other in others or (Unit.GPU, Unit.AMX):
        is_present = machine.status(other).presence is Presence.PRESENT
        if other not in (unit, Unit.CPU) and is_present and _can_run(other, config, machine):
            found.append(Choice(other))
    if unit is not Unit.CPU:
        found.append(Choice(Unit.CPU))
    return tuple(found)
