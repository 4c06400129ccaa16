"""Make a plan: rules and costs of each operation on each unit, then the path that serves the goal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.hardware.chip import Chip
from triune.hardware.rules import Refusal, refusal, tier_of
from triune.planning.advice import advice_of
from triune.planning.constants import Constants
from triune.planning.core_ml import LAUNCH_MS, core_ml_choice
from triune.planning.cost import Costs, costs_of, sizes_of
from triune.planning.op import Op, OpClass
from triune.planning.placement import (
    PathCosts,
    place_cheapest,
    place_fastest,
    place_pipeline,
    require_possible,
)
from triune.planning.plan import Goal, Plan, PlannedOp, Segment, Whole
from triune.planning.units import PlannedUnit, units_of

_SAME_CORES = {Unit.CPU, Unit.AMX}
_PASSED_TWICE = 2
"""What passes from unit to unit is written and read once more, as each has its own layout."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to plan.

    Attributes:
        title: what messages call it.
        ops: its operations, in the order in which they run.
        group: the class of models whose predictions it shares the error with: "convolution", "encoder", "decode",
            "prefill".
        goal: what the plan is for.
        units: the units that it may use; empty for all.
        latency_limit_ms: for the goal energy, the longest time of a call; None for that of the fastest plan, twice.
    """

    title: str
    ops: Sequence[Op]
    group: str
    goal: Goal = Goal.LATENCY
    units: tuple[Unit, ...] = ()
    latency_limit_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """The operations of a model on the units of a chip.

    Attributes:
        ops: the operations.
        units: the units, in the order of the columns.
        time: the costs in milliseconds.
        energy: the costs in joules.
        costs: the parts of each unit's costs.
        refusals: for each operation, why units refuse it.
    """

    ops: Sequence[Op]
    units: Sequence[PlannedUnit]
    time: PathCosts
    energy: PathCosts
    costs: Sequence[Costs]
    refusals: Sequence[Mapping[Unit, Refusal]]


def plan(request: Request, chip: Chip, constants: Constants) -> Plan:
    """Plan a model for a chip.

    Raises:
        InvalidArgumentError: the chip has no such unit, or a limit is given for another goal than energy.
        UnsupportedError: an operation has no unit, or no plan keeps the limit.
    """
    if request.latency_limit_ms is not None and request.goal is not Goal.ENERGY:
        raise InvalidArgumentError("a limit of latency (--latency-limit) is for plans of least energy (--for energy)")
    if not request.ops:
        raise InvalidArgumentError(f"{request.title} computes nothing: there is nothing to plan")
    found = candidates(request, chip, constants)
    path = _path(request, found)
    segments = _segments(found, path)
    ms = sum(each.ms for each in segments)
    # All units share the memory, so that a pipeline is no faster than what passes through it.
    period = ms
    if request.goal is Goal.THROUGHPUT:
        memory_ms = _weight_bytes(found, path) / chip.memory.gb_per_s.value / 1e6 if chip.memory.gb_per_s else 0.0
        period = max(*(each.ms for each in segments), memory_ms)
    ane = next((each for each in found.units if each.unit is Unit.ANE), None)
    return Plan(
        title=request.title,
        chip=chip.name,
        goal=request.goal,
        segments=segments,
        ms=ms,
        joules=sum(each.joules for each in segments),
        period_ms=period,
        wholes=[_whole(found, column) for column in range(len(found.units))],
        core_ml=None if ane is None else core_ml_choice(request.ops, tier_of(chip.generation)),
        advice=advice_of(found.ops, [each.unit for each in found.units], found.time, found.refusals, path),
        latency_error=constants.score("latency", request.group),
        joules_error=constants.score("joules", request.group),
        notes=_notes(found, path, chip),
    )


def candidates(request: Request, chip: Chip, constants: Constants) -> Candidates:
    """Rules and costs of a request's operations on the units of a chip.

    Raises:
        InvalidArgumentError: the chip has no such unit.
    """
    present = units_of(chip, constants)
    if lacking := [unit.value for unit in request.units if unit not in present]:
        raise InvalidArgumentError(
            f"a plan for {chip.name} cannot use {', '.join(lacking)}: nothing is known of it; it has "
            f"{', '.join(unit.value for unit in present)}"
        )
    # The CPU computes products by its matrix units, through Accelerate: "cpu" alone, without them, is never better.
    wanted = request.units or tuple(unit for unit in present if unit is not Unit.CPU or Unit.AMX not in present)
    units = [present[unit] for unit in wanted]
    sizes = sizes_of(request.ops)
    tier = tier_of(chip.generation)
    refusals: list[Mapping[Unit, Refusal]] = [
        {each.unit: refused for each in units if (refused := refusal(op.facts, each.unit, "onnx", tier)) is not None}
        for op in request.ops
    ]
    costs = [costs_of(sizes, each.rates) for each in units]
    is_refused = np.array([[each.unit in refused for each in units] for refused in refusals])
    passed = _PASSED_TWICE * _live_bytes(request.ops)
    memory = chip.memory.gb_per_s.value if chip.memory.gb_per_s else min(each.rates.memory_gb_per_s for each in units)
    launch = np.array([each.rates.launch_ms for each in units])
    switch = np.array(
        [
            [0.0 if one is other or {one.unit, other.unit} == _SAME_CORES else LAUNCH_MS for other in units]
            for one in units
        ]
    )
    transfer = passed / memory / 1e6
    # What is fused with the operation before stays with it, unless a rule parts them.
    for index in range(1, len(request.ops)):
        if request.ops[index].is_fused and refusals[index].keys() == refusals[index - 1].keys():
            transfer[index] = np.inf
    time = PathCosts(
        np.where(is_refused, np.inf, np.stack([each.ms for each in costs], 1)),
        launch,
        switch,
        transfer,
        np.zeros(len(units)),
    )
    # While a segment is launched its unit draws the power that it draws at the least.
    watts = np.array([each.rates.watts for each in units])
    energy = PathCosts(
        np.where(is_refused, np.inf, np.stack([each.joules for each in costs], 1)),
        1e-3 * watts * launch,
        1e-3 * watts[None, :] * switch,
        1e-3 * float(watts.min()) * time.transfer,
        np.zeros(len(units)),
    )
    return Candidates(request.ops, units, time, energy, costs, refusals)


def _path(request: Request, found: Candidates) -> list[int]:
    names = [f"{op.op_type} {op.name}" for op in found.ops]
    reasons = [
        ", ".join(f"{unit.value}: {each.reason}" for unit, each in refused.items()) for refused in found.refusals
    ]
    require_possible(found.time, names, reasons)
    fastest = place_fastest(found.time)
    match request.goal:
        case Goal.LATENCY:
            return fastest
        case Goal.THROUGHPUT:
            return place_pipeline(found.time)
        case Goal.ENERGY:
            least = found.time.total(fastest)
            limit = 2 * least if request.latency_limit_ms is None else request.latency_limit_ms
            cheapest = place_cheapest(found.time, found.energy, limit)
            if cheapest is None:
                raise UnsupportedError(
                    f"no plan of {request.title} takes at most {limit:g} ms: the fastest is predicted to take "
                    f"{least:.3g} ms; raise --latency-limit"
                )
            return cheapest


def _segments(found: Candidates, path: Sequence[int]) -> list[Segment]:
    segments: list[Segment] = []
    makers = {name: op.name for op in found.ops for name in op.outputs}
    for unit, positions in groupby(range(len(path)), key=lambda position: path[position]):
        indices = list(positions)
        begin = indices[0]
        launch_ms, launch_joules = (
            float(costs.launch[unit] if not begin else costs.boundary(begin)[path[begin - 1], unit])
            for costs in (found.time, found.energy)
        )
        ops = [_planned(found, index, unit, makers) for index in indices]
        segments.append(
            Segment(
                found.units[unit].unit,
                ops,
                launch_ms,
                launch_ms + sum(op.ms for op in ops),
                launch_joules + sum(op.joules for op in ops),
                _why(found, indices, unit, launch_ms),
            )
        )
    return segments


def _planned(found: Candidates, index: int, unit: int, makers: Mapping[str, str]) -> PlannedOp:
    op, costs = found.ops[index], found.costs[unit]
    ms = float(costs.ms[index])
    compute, memory = float(costs.compute_ms[index]), float(costs.memory_ms[index])
    bound = "launch" if max(compute, memory) < ms / 2 else "arithmetic" if compute > memory else "memory"
    return PlannedOp(
        op.name,
        op.op_type,
        found.units[unit].unit,
        ms,
        float(costs.joules[index]),
        "nothing" if op.op_class is OpClass.VIEW else bound,
        {
            each.unit: float(found.time.ops[index, column])
            for column, each in enumerate(found.units)
            if np.isfinite(found.time.ops[index, column])
        },
        found.refusals[index],
        tuple(dict.fromkeys(makers[name] for name in op.inputs if name in makers)),
    )


def _why(found: Candidates, indices: Sequence[int], unit: int, launch_ms: float) -> str:
    """Why a segment is on its unit: what the others would need for its operations, or what they refuse."""

    def own(column: int) -> str:
        return f"{float(found.time.ops[indices, column].sum()):.3g} ms"

    texts = [f"its operations take {own(unit)} here, its launch {launch_ms:.3g} ms"]
    for column, other in enumerate(found.units):
        refused = [index for index in indices if other.unit in found.refusals[index]]
        if refused:
            first = found.refusals[refused[0]][other.unit]
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            texts.append(f"{other.unit.value} refuses {found.ops[refused[0]].name} ({first.reason}){more}")
        elif column != unit:
            texts.append(f"{own(column)} on {other.unit.value}")
    return "; ".join(texts)


def _whole(found: Candidates, column: int) -> Whole:
    ops = found.time.ops[:, column]
    num_refused = int(np.isinf(ops).sum())
    path = [column] * len(ops)
    if num_refused:
        return Whole(found.units[column].unit, None, None, num_refused)
    return Whole(found.units[column].unit, found.time.total(path), found.energy.total(path), 0)


def _live_bytes(ops: Sequence[Op]) -> NDArray[np.float64]:
    """For each operation the bytes, in fp16, of earlier results that it or a later one reads."""
    made: dict[str, tuple[int, float]] = {}
    change = np.zeros(len(ops) + 1)
    last: dict[str, int] = {}
    for index, op in enumerate(ops):
        # A fused operation writes in the place of the one before.
        size = max(op.written, 0.0) / max(1, len(op.outputs))
        made.update(dict.fromkeys(op.outputs, (index, size)))
        last.update({name: index for name in op.inputs if name in made})
    for name, reader in last.items():
        index, size = made[name]
        change[index + 1] += 2 * size
        change[reader + 1] -= 2 * size
    return np.cumsum(change)[: len(ops)]


def _weight_bytes(found: Candidates, path: Sequence[int]) -> float:
    """The bytes of all weights, as the units of a path hold them."""
    return sum(
        op.weights * (op.weight_bits or 8 * found.units[unit].rates.element_bytes) / 8
        for op, unit in zip(found.ops, path, strict=True)
    )


def _notes(found: Candidates, path: Sequence[int], chip: Chip) -> list[str]:
    notes = [note for each in found.units for note in each.notes]
    size, weights = chip.memory.size_gb, _weight_bytes(found, path) / 2**30
    if size is not None and weights > size.value:
        notes.append(
            f"the weights take {weights:.3g} GB, and {chip.name} is sold with {size.value:g} GB at most: it would not "
            "run"
        )
    return notes
