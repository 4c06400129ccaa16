"""Advice on how to make a plan faster: operations to replace, shapes to pad."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

import numpy as np

from triune.core.units import Unit
from triune.hardware.rules import Refusal, Rule
from triune.planning.cost import costs_of, sizes_of
from triune.planning.op import Op, OpClass
from triune.planning.placement import PathCosts, place_fastest
from triune.planning.plan import Advice
from triune.planning.units import PlannedUnit

_APPLE: Final = "Apple, Deploying Transformers on the Apple Neural Engine, 2022"

_ALIGNED: Final = 32
"""The Neural Engine pads the last axis of a value to a multiple of 64 bytes: 32 elements of fp16. Source: `_APPLE`."""
_WORTH_SAYING: Final = 0.01
"""A change that saves less than this fraction of the plan's time is not mentioned."""
_WASTED_BYTES: Final = 1e6
"""Padding that wastes fewer bytes than this in a call is not mentioned."""
_MOST_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class _Lifted:
    """The operations that a unit could compute if one of its rules did not exist."""

    rule: Rule
    names: list[str]
    positions: list[int]


def advice_of(
    ops: Sequence[Op],
    planned: Sequence[PlannedUnit],
    time: PathCosts,
    refusals: Sequence[Mapping[Unit, Refusal]],
    path: Sequence[int],
) -> list[Advice]:
    """Find changes that would make a plan faster, the largest saving first.

    For each rule that refuses operations, this plans again as if the unit could compute them, in the time of the
    fastest other unit.
    """
    units = [each.unit for each in planned]
    now = time.total(place_fastest(time))
    found = _layout(ops, planned, path, now)
    for each in _lifted(ops, refusals):
        column = units.index(each.rule.unit)
        costs = time.ops.copy()
        costs[each.positions, column] = np.where(np.isinf(costs), np.inf, costs).min(axis=1)[each.positions]
        tried = replace(time, ops=costs)
        saved = now - tried.total(place_fastest(tried))
        if saved > _WORTH_SAYING * now:
            unit, remedy = each.rule.unit, each.rule.remedy
            reason = refusals[each.positions[0]][unit].reason
            what = f"{unit.value} refuses {_some(each.names)}: {reason}. {remedy[:1].upper()}{remedy[1:]}"
            found.append(Advice(what, saved, each.rule.source))
    found.sort(key=lambda each: -(each.saves_ms or 0))
    return [*found, *_padding(ops, units, path)]


def _layout(ops: Sequence[Op], planned: Sequence[PlannedUnit], path: Sequence[int], now: float) -> list[Advice]:
    """Advise to write matrix products with weights as 1x1 convolutions, which are faster on the Neural Engine."""
    products = [
        op
        for op, column in zip(ops, path, strict=True)
        if planned[column].unit is Unit.ANE and op.op_class is OpClass.MATMUL
    ]
    if not products:
        return []
    rates = next(each.rates for each in planned if each.unit is Unit.ANE)
    convolutions = [replace(op, op_class=OpClass.CONV) for op in products]
    before, after = (float(costs_of(sizes_of(some), rates).ms.sum()) for some in (products, convolutions))
    if before - after <= _WORTH_SAYING * now:
        return []
    what = (
        f"on the ane the products with weights ({len(products)} of them, {_some([op.name for op in products])}) are "
        "faster as 1x1 convolutions of (batch, channels, 1, positions): convert with --layout ane"
    )
    return [Advice(what, before - after, _APPLE)]


def _lifted(ops: Sequence[Op], refusals: Sequence[Mapping[Unit, Refusal]]) -> list[_Lifted]:
    """The operations that each rule refuses on each unit. Rules without a remedy are left out."""
    found: dict[tuple[str, Unit], _Lifted] = {}
    for position, refused in enumerate(refusals):
        for unit, each in refused.items():
            lifted = found.setdefault((each.rule.name, unit), _Lifted(each.rule, [], []))
            lifted.names.append(f"{ops[position].op_type} {ops[position].name}")
            lifted.positions.append(position)
    return [each for each in found.values() if each.rule.remedy]


def _padding(ops: Sequence[Op], units: Sequence[Unit], path: Sequence[int]) -> list[Advice]:
    """Advise to pad last axes that are not a multiple of 64 bytes on the Neural Engine. The advice names only the size
    of such axes that wastes the most memory.
    """
    wasted: dict[int, float] = {}
    for op, unit in zip(ops, path, strict=True):
        if units[unit] is Unit.ANE and op.facts.shapes and op.facts.shapes[0]:
            size = op.facts.shapes[0][-1]
            wasted[size] = wasted.get(size, 0.0) + 2 * op.written * (_padded(size) - size) / max(1, size)
    size = max(wasted, key=lambda each: wasted[each], default=0)
    if not size or wasted[size] < _WASTED_BYTES:
        return []
    padded = _padded(size)
    what = (
        f"on the ane a last axis of {size} takes the memory of {padded}, since rows there are multiples of 64 bytes: "
        f"pad it to {padded}, or put a longer axis last"
    )
    return [Advice(what, None, _APPLE)]


def _padded(size: int) -> int:
    return _ALIGNED * ceil(size / _ALIGNED)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"
