"""Makes a plan: computes the costs of each operation on each unit, then finds the best path for the goal."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.planning.advice import advice_of
from triune.planning.candidates import Candidates, Request, candidates
from triune.planning.constants import Constants
from triune.planning.core_ml import core_ml_choice
from triune.planning.op import OpClass
from triune.planning.placement import (
    place_cheapest,
    place_fastest,
    place_pipeline,
    require_possible,
)
from triune.planning.plan import Goal, Plan, PlannedOp, Segment, Whole
from triune.planning.units import Target

_MUCH = 0.2
"""If more than this fraction of a plan's time is on cpu and amx, a note says that such times are less certain."""


def plan(request: Request, target: Target, constants: Constants) -> Plan:
    """Plan a model for a chip or this machine.

    Raises:
        InvalidArgumentError: the target lacks a unit that the request names, or a limit is given for another goal than
            energy, or the model has no operations.
        UnsupportedError: no unit supports an operation, no plan is within the limit, or a plan of least energy is
            requested and a unit's power is not known.
    """
    if request.latency_limit_ms is not None and request.goal is not Goal.ENERGY:
        raise InvalidArgumentError("a limit of latency (--latency-limit) is for plans of least energy (--for energy)")
    if not request.ops:
        raise InvalidArgumentError(f"{request.title} computes nothing: there is nothing to plan")
    found = candidates(request, target)
    if request.goal is Goal.ENERGY:
        _require_joules(found, target)
    path = _path(request, found)
    segments = _segments(found, path)
    ms = sum(each.ms for each in segments)
    # All units share the memory. The period of a pipeline is at least the time to read all weights.
    period = ms
    if request.goal is Goal.THROUGHPUT:
        bandwidth = target.memory_gb_per_s or np.inf
        period = max(*(each.ms for each in segments), _weight_bytes(found, path) / bandwidth / 1e6)
    ane = next((each for each in found.units if each.unit is Unit.ANE), None)
    return Plan(
        title=request.title,
        chip=target.name,
        goal=request.goal,
        segments=segments,
        ms=ms,
        joules=sum(each.joules for each in segments),
        period_ms=period,
        wholes=[_whole(request, found, column) for column in range(len(found.units))],
        core_ml=None if ane is None else core_ml_choice(request.ops, target.tier),
        advice=advice_of(found.ops, found.units, found.time, found.refusals, path),
        latency_error=constants.score("latency", request.group) if target.is_scored else None,
        joules_error=constants.score("joules", request.group) if target.is_scored else None,
        notes=_notes(found, path, target, segments),
    )


def _require_joules(found: Candidates, target: Target) -> None:
    """Raise UnsupportedError if the energy of a unit is not known."""
    lacking = [
        each.unit.value
        for each, launch, ops in zip(found.units, found.energy.launch, found.energy.ops.T, strict=True)
        if np.isnan(launch) or np.isnan(ops).any()
    ]
    if lacking:
        raise UnsupportedError(
            f"a plan of least energy needs the power of each unit, which is not known of {', '.join(lacking)} on "
            f"{target.name}: where the unit has a meter (`triune units`), `triune serve` and `triune tune --objective "
            "joules` measure it for the model; or choose units (--unit), or name one of Apple's chips (--chip)"
        )


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
    ms = float(found.time.ops[index, unit])
    compute, memory = float(costs.compute_ms[index]), float(costs.memory_ms[index])
    bound = "launch" if max(compute, memory) < costs.ms[index] / 2 else "arithmetic" if compute > memory else "memory"
    return PlannedOp(
        op.name,
        op.op_type,
        found.units[unit].unit,
        ms,
        float(found.energy.ops[index, unit]),
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
    """Explain why a segment is on its unit: the times on the other units, or the operations that they refuse."""

    def own(column: int) -> str:
        return f"{float(found.time.ops[indices, column].sum()):.3g} ms"

    launch = f", its launch {launch_ms:.3g} ms" if launch_ms else ""
    texts = [f"its operations take {own(unit)} here{launch}"]
    for column, other in enumerate(found.units):
        refused = [index for index in indices if other.unit in found.refusals[index]]
        if refused:
            first = found.refusals[refused[0]][other.unit]
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            texts.append(f"{other.unit.value} refuses {found.ops[refused[0]].name} ({first.reason}){more}")
        elif column != unit:
            texts.append(f"{own(column)} on {other.unit.value}")
    return "; ".join(texts)


def _whole(request: Request, found: Candidates, column: int) -> Whole:
    ops = found.time.ops[:, column]
    num_refused = int(np.isinf(ops).sum())
    path = [column] * len(ops)
    if num_refused:
        return Whole(found.units[column].unit, None, None, num_refused)
    unit = found.units[column].unit
    joules, measured = found.energy.total(path), request.measured.get(unit)
    return Whole(unit, found.time.total(path), joules, 0, found.predicted_ms[column], measured)


def _weight_bytes(found: Candidates, path: Sequence[int]) -> float:
    """The size of all weights in bytes, in the form in which the units of a path store them."""
    return sum(
        op.weights * (op.weight_bits or 8 * found.units[unit].rates.element_bytes) / 8
        for op, unit in zip(found.ops, path, strict=True)
    )


def _notes(found: Candidates, path: Sequence[int], target: Target, segments: Sequence[Segment]) -> list[str]:
    notes = [*target.notes, *(note for each in found.units for note in each.notes)]
    on_cpu = sum(each.ms for each in segments if each.unit in (Unit.CPU, Unit.AMX))
    if target.is_scored and on_cpu > _MUCH * sum(each.ms for each in segments):
        notes.append(
            "few measurements of CPUs are published: times on cpu and amx are less certain than the error says"
        )
    weights = _weight_bytes(found, path) / 2**30
    if target.memory_gb is not None and weights > target.memory_gb:
        notes.append(
            f"the weights take {weights:.3g} GB, and {target.name} has {target.memory_gb:.3g} GB at most: it would not "
            "run"
        )
    return notes
