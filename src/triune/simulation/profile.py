"""The predicted cost of a model's batches on the units of a chip, by unit and number of rows."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np

from triune.config.policy import BatchingPolicy
from triune.core.errors import UnsupportedError
from triune.core.units import Unit
from triune.planning.candidates import Candidates, Request, candidates
from triune.planning.op import Op
from triune.planning.placement import place_fastest, segment_times
from triune.planning.units import Target

_LEAST_SHARE: Final = 0.5
"""A unit that refuses some operations serves a model, with the CPU for those operations, if at least this
fraction of the time is spent on the unit.
"""


@dataclass(frozen=True, slots=True)
class BatchCost:
    """The predicted cost of a batch if nothing else runs.

    Attributes:
        num_rows: the number of its rows.
        unit_ns: the time on each unit, one after the other.
        joules: its energy.
        memory_bytes: its memory traffic, in bytes.
    """

    num_rows: int
    unit_ns: Mapping[Unit, float]
    joules: float
    memory_bytes: float

    @property
    def ns(self) -> float:
        """The total time in nanoseconds."""
        return sum(self.unit_ns.values())


@dataclass(frozen=True, slots=True)
class Profile:
    """A model on a chip.

    Attributes:
        name: the model's name.
        policy: how its requests are queued and batched.
        row_elements: the number of input elements of a row.
        group: the class of models, by which the expected error of predictions is looked up.
        costs: for each unit that serves it, the costs of some batch sizes, ascending.
        left_out: why other units of the chip do not serve it.
        weight: its share of hardware that models compete for, relative to the weights of other models.
        objective_ns: its latency objective, in nanoseconds; 0 for none.
    """

    name: str
    policy: BatchingPolicy
    row_elements: int
    group: str
    costs: Mapping[Unit, Sequence[BatchCost]]
    left_out: Mapping[Unit, str]
    weight: float = 1.0
    objective_ns: int = 0

    @property
    def max_rows(self) -> int:
        """The number of rows of the largest batch."""
        return max(1, self.policy.max_batch_size)

    def cost(self, unit: Unit, num_rows: int) -> BatchCost:
        """The cost of a batch. Between two predicted sizes it is interpolated linearly."""
        known = self.costs[unit]
        index = bisect_left(known, num_rows, key=lambda each: each.num_rows)
        after = known[index]
        if after.num_rows == num_rows:
            return after
        before = known[index - 1]
        part = (num_rows - before.num_rows) / (after.num_rows - before.num_rows)

        def between(one: float, other: float) -> float:
            return one + part * (other - one)

        units = [*before.unit_ns, *(each for each in after.unit_ns if each not in before.unit_ns)]
        return BatchCost(
            num_rows,
            {each: between(before.unit_ns.get(each, 0.0), after.unit_ns.get(each, 0.0)) for each in units},
            between(before.joules, after.joules),
            between(before.memory_bytes, after.memory_bytes),
        )


def batch_sizes(max_rows: int) -> list[int]:
    """The sizes for which costs are predicted: powers of two, and the largest batch."""
    sizes = [1 << exponent for exponent in range(max_rows.bit_length())]
    return sizes if sizes[-1] == max_rows else [*sizes, max_rows]


def profile_of(
    name: str,
    policy: BatchingPolicy,
    row_elements: int,
    ops_of: Callable[[int], tuple[Sequence[Op], str]],
    target: Target,
    weight: float = 1.0,
    objective_ns: int = 0,
) -> Profile:
    """Predict what batches of a model cost on each unit of a chip.

    If a unit refuses some operations, the CPU computes these, as in Core ML, unless most of the time would be spent on
    the CPU.

    Args:
        name: the model's name.
        policy: how its requests are queued and batched.
        row_elements: the number of input elements of a row.
        ops_of: returns, for a number of rows, the operations of a batch and the class of the model.
        target: the chip.
        weight: its share of hardware that models compete for.
        objective_ns: its latency objective, in nanoseconds; 0 for none.

    Raises:
        UnsupportedError: no unit serves the model.
    """
    found = {size: ops_of(size) for size in batch_sizes(max(1, policy.max_batch_size))}
    group = found[1][1]
    helper = Unit.AMX if Unit.AMX in target.units else Unit.CPU
    costs: dict[Unit, list[BatchCost]] = {}
    left_out: dict[Unit, str] = {}
    for unit in target.units:
        if unit is Unit.CPU and helper is not unit:
            continue
        for size, (ops, _) in found.items():
            cost, reason = _cost(Request(name, ops, group, units=(unit,)), size, target, helper)
            if cost is None:
                left_out[unit] = reason
                costs.pop(unit, None)
                break
            costs.setdefault(unit, []).append(cost)
    if not costs:
        reasons = "; ".join(f"{unit.value}: {reason}" for unit, reason in left_out.items())
        raise UnsupportedError(f"no unit of {target.name} serves model '{name}': {reasons}")
    return Profile(name, policy, row_elements, group, costs, left_out, weight, objective_ns)


def _cost(request: Request, num_rows: int, target: Target, helper: Unit) -> tuple[BatchCost | None, str]:
    """Predict the cost of a batch on the unit of the request; `helper` is the unit that computes the operations which
    that unit refuses. Returns None, and the reason, if the unit does not serve the model.
    """
    unit = request.units[0]
    alone = candidates(request, target)
    if np.isfinite(alone.time.ops).all():
        return _cost_of(alone, num_rows), ""
    refused = next(refusals[unit] for refusals in alone.refusals if refusals)
    num_refused = sum(map(bool, alone.refusals))
    reason = f"it refuses {num_refused} operation{'s' if num_refused > 1 else ''} ({refused.reason})"
    if unit is helper or helper not in target.units:
        return None, reason
    both = candidates(Request(request.title, request.ops, request.group, units=(unit, helper)), target)
    if not np.isfinite(both.time.ops).any(axis=1).all():
        return None, f"{reason}, and {helper.value} refuses some of them, too"
    cost = _cost_of(both, num_rows)
    if cost.unit_ns.get(unit, 0.0) < _LEAST_SHARE * cost.ns:
        return None, f"{reason}; with these on {helper.value} most of the time would be there"
    return cost, ""


def _cost_of(found: Candidates, num_rows: int) -> BatchCost:
    path = place_fastest(found.time)
    units = [found.units[column].unit for column, _ in groupby(path)]
    unit_ns = dict.fromkeys(units, 0.0)
    for unit, ms in zip(units, segment_times(found.time, path), strict=True):
        unit_ns[unit] += 1e6 * ms
    memory_bytes = sum(float(found.costs[column].memory_bytes[index]) for index, column in enumerate(path))
    return BatchCost(num_rows, unit_ns, found.energy.total(path), memory_bytes)
