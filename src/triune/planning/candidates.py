"""The operations of a model on the units of a target: what each costs, and what each unit refuses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from triune.core.errors import InvalidArgumentError
from triune.core.units import Unit
from triune.hardware.rules import Refusal, refusal
from triune.planning.core_ml import LAUNCH_MS
from triune.planning.cost import Costs, costs_of, sizes_of
from triune.planning.measured import MeasuredTime
from triune.planning.op import Op
from triune.planning.placement import PathCosts
from triune.planning.plan import Goal
from triune.planning.units import PlannedUnit, Target

_SAME_CORES = {Unit.CPU, Unit.AMX}
_FIRST_INT8, _FIRST_BLOCKS = 2, 3
"""The first tiers of Neural Engines (`tier_of`) that read weights of 8 bits, and weights in blocks, as they are
stored.
"""

_PASSED_TWICE = 2
"""How often each byte that passes from one unit to another is moved: it is written and read once more, since each unit
has its own layout.
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What to plan: a model's operations, the goal, and the allowed units.

    Attributes:
        title: the name of the model, or of a step of it, in messages.
        ops: its operations, in the order in which they run.
        group: the class of models, by which the expected error of predictions is looked up: "convolution", "encoder",
            "decode", "prefill".
        goal: what the plan is for.
        units: the units that it may use; empty for all.
        latency_limit_ms: for the goal energy, the longest allowed time of a call; None means twice the time of the
            fastest plan.
        measured: the measured times and joules of the whole model on units of the target. The cost model's predictions
            for a unit, including launches, are scaled so that they agree with them.
    """

    title: str
    ops: Sequence[Op]
    group: str
    goal: Goal = Goal.LATENCY
    units: tuple[Unit, ...] = ()
    latency_limit_ms: float | None = None
    measured: Mapping[Unit, MeasuredTime] = field(default_factory=dict[Unit, MeasuredTime])


@dataclass(frozen=True, slots=True)
class Candidates:
    """The operations of a model on the units of a chip.

    Attributes:
        ops: the operations.
        units: the units, in the order of the columns of `time` and `energy`.
        time: the costs in milliseconds.
        energy: the costs in joules.
        costs: for each unit, the parts of which its costs are composed.
        refusals: for each operation, why units refuse it.
        predicted_ms: the time of the whole model on each unit, by the cost model without measurements; infinite if the
            unit refuses an operation.
    """

    ops: Sequence[Op]
    units: Sequence[PlannedUnit]
    time: PathCosts
    energy: PathCosts
    costs: Sequence[Costs]
    refusals: Sequence[Mapping[Unit, Refusal]]
    predicted_ms: Sequence[float]


def candidates(request: Request, target: Target) -> Candidates:
    """Compute the costs of a request's operations on the units of a target, and which operations their rules refuse.

    Raises:
        InvalidArgumentError: the target lacks a unit that the request names.
    """
    present = target.units
    if lacking := [unit.value for unit in request.units if unit not in present]:
        raise InvalidArgumentError(
            f"a plan for {target.name} cannot use {', '.join(lacking)}: nothing is known of it; it has "
            f"{', '.join(unit.value for unit in present)}"
        )
    # On Apple's CPUs, leave out "cpu" unless it was asked for: Accelerate computes matrix products on the matrix units,
    # so the cores alone are never better.
    has_accelerate = target.is_scored and Unit.AMX in present
    wanted = request.units or tuple(unit for unit in present if unit is not Unit.CPU or not has_accelerate)
    units = [present[unit] for unit in wanted]
    refusals: list[Mapping[Unit, Refusal]] = [
        {
            each.unit: refused
            for each in units
            if (refused := refusal(op.facts, each.unit, "onnx", target.tier)) is not None
        }
        for op in request.ops
    ]
    costs = [costs_of(sizes_of(_held(request.ops, each.unit, target.tier)), each.rates) for each in units]
    is_refused = np.array([[each.unit in refused for each in units] for refused in refusals])
    passed = _PASSED_TWICE * _live_bytes(request.ops)
    memory = target.memory_gb_per_s or min(each.rates.memory_gb_per_s for each in units)
    launch = np.array([each.rates.launch_ms for each in units])
    ms = np.where(is_refused, np.inf, np.stack([each.ms for each in costs], 1))
    predicted = launch + ms.sum(axis=0)
    scale = np.array(
        [
            request.measured[each.unit].ms / whole if each.unit in request.measured and np.isfinite(whole) else 1.0
            for each, whole in zip(units, predicted, strict=True)
        ]
    )
    launch, ms = launch * scale, ms * scale
    switch = np.array(
        [
            [0.0 if one is other or {one.unit, other.unit} == _SAME_CORES else LAUNCH_MS for other in units]
            for one in units
        ]
    )
    transfer = passed / memory / 1e6
    # An operation that is fused with the one before is placed on the same unit, unless a rule separates them.
    for index in range(1, len(request.ops)):
        if request.ops[index].is_fused and refusals[index].keys() == refusals[index - 1].keys():
            transfer[index] = np.inf
    time = PathCosts(
        ms,
        launch,
        switch,
        transfer,
        np.zeros(len(units)),
    )
    # During the launch of a segment, the unit draws its minimum power.
    watts = np.array([each.rates.watts for each in units])
    joules = np.stack([each.joules for each in costs], 1)
    for column, each in enumerate(units):
        known = request.measured.get(each.unit)
        if known is None or known.joules is None or not np.isfinite(predicted[column]):
            continue
        whole = 1e-3 * watts[column] * launch[column] + joules[:, column].sum()
        if np.isnan(whole):
            # Nothing is known of the unit's power but this: it is the same for all operations.
            watts[column] = 1e3 * known.joules / known.ms
            joules[:, column] = 1e-3 * watts[column] * ms[:, column]
        else:
            watts[column] *= known.joules / whole
            joules[:, column] *= known.joules / whole
    # The memory's traffic counts with the least power that is known.
    least_watts = np.nan if np.isnan(watts).all() else np.nanmin(watts)
    energy = PathCosts(
        np.where(is_refused, np.inf, joules),
        1e-3 * watts * launch,
        1e-3 * watts[None, :] * switch,
        1e-3 * float(least_watts) * time.transfer,
        np.zeros(len(units)),
    )
    return Candidates(request.ops, units, time, energy, costs, refusals, predicted.tolist())


def _held(ops: Sequence[Op], unit: Unit, tier: int) -> Sequence[Op]:
    """The operations with the bits per weight that a unit reads: None where it cannot read the stored form as it is.

    From M2 on the Neural Engine reads 8-bit integers directly, and from M3 and A15 on integers with a scale for each
    block; for older chips, Core ML unpacks them to fp16 when it loads the model (sbryngelson/ane-guide, appendix A).
    """
    if unit is not Unit.ANE or tier >= _FIRST_BLOCKS:
        return ops
    least = 8 if tier >= _FIRST_INT8 else float("inf")
    return [replace(op, weight_bits=None) if (op.weight_bits or least) < least else op for op in ops]


def _live_bytes(ops: Sequence[Op]) -> NDArray[np.float64]:
    """For each operation, the bytes in fp16 of earlier results that it or a later operation reads."""
    made: dict[str, tuple[int, float]] = {}
    change = np.zeros(len(ops) + 1)
    last: dict[str, int] = {}
    for index, op in enumerate(ops):
        # `written` of a fused operation is 0, since it overwrites the result of the previous operation; its own result
        # exists all the same.
        elements = sum(map(prod, op.facts.shapes)) if op.is_fused else op.written
        size = max(elements, 0.0) / max(1, len(op.outputs))
        made.update(dict.fromkeys(op.outputs, (index, size)))
        last.update({name: index for name in op.inputs if name in made})
    for name, reader in last.items():
        index, size = made[name]
        change[index + 1] += 2 * size
        change[reader + 1] -= 2 * size
    return np.cumsum(change)[: len(ops)]
