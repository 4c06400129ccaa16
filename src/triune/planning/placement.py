"""Which unit computes which operation: shortest paths through predicted costs.

Operations run one after the other, in the graph's order, as Core ML runs them: branches of a graph do not run in
parallel. So a placement is a path: from each operation to the next, on the same unit or on another. A segment is a run
of operations on one unit. Every function finds the best path for the costs that it is given; only `place_cheapest` may
miss it slightly (`MOST_LABELS`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triune.core.errors import UnsupportedError

MOST_LABELS = 256
"""The most pairs of time and energy that `place_cheapest` keeps for an operation on a unit. If there are more, it keeps
this number of evenly spaced ones, so that a plan may cost slightly more than the cheapest one.
"""


@dataclass(frozen=True, slots=True)
class PathCosts:
    """Costs of a placement, in milliseconds or joules, with one row for each operation and one column for each unit.

    Attributes:
        ops: the cost of each operation on each unit; infinite where the unit refuses it.
        launch: the cost of starting a segment on each unit.
        switch: the cost of passing from a unit (row) to another (column); the diagonal is 0.
        transfer: for each operation, the cost of transferring the values that are still needed, if the unit changes
            before it.
        output: the cost of transferring the output from each unit, if the last segment runs on it.
    """

    ops: NDArray[np.float64]
    launch: NDArray[np.float64]
    switch: NDArray[np.float64]
    transfer: NDArray[np.float64]
    output: NDArray[np.float64]

    @property
    def num_ops(self) -> int:
        """The number of operations."""
        return self.ops.shape[0]

    @property
    def num_units(self) -> int:
        """The number of units."""
        return self.ops.shape[1]

    def boundary(self, position: int) -> NDArray[np.float64]:
        """The cost of changing from each unit to each other unit before an operation; 0 on the diagonal."""
        cost = self.switch + self.launch[None, :] + self.transfer[position]
        np.fill_diagonal(cost, 0.0)
        return cost

    def total(self, path: Sequence[int]) -> float:
        """The cost of a placement: the sum of its operations, launches, switches, transfers and output."""
        cost = float(self.launch[path[0]] + self.output[path[-1]])
        for position, unit in enumerate(path):
            cost += float(self.ops[position, unit])
            if position and path[position - 1] != unit:
                cost += float(self.boundary(position)[path[position - 1], unit])
        return cost


def require_possible(costs: PathCosts, names: Sequence[str], reasons: Sequence[str]) -> None:
    """Require that each operation has a unit.

    Raises:
        UnsupportedError: some operations have no unit. The message names them, with the reasons.
    """
    lost = [index for index in range(costs.num_ops) if not np.isfinite(costs.ops[index]).any()]
    if lost:
        shown = "; ".join(f"'{names[index]}': {reasons[index]}" for index in lost[:4])
        more = f"; and {len(lost) - 4} more" if len(lost) > 4 else ""
        raise UnsupportedError(
            f"no plan: {len(lost)} operation{'s have' if len(lost) > 1 else ' has'} no unit: {shown}{more}; allow "
            "another unit (--unit)"
        )


def place_fastest(costs: PathCosts) -> list[int]:
    """The path of the least cost, by dynamic programming over operations. Ties go to the unit that comes first."""
    best = costs.launch + costs.ops[0]
    before = np.zeros((costs.num_ops, costs.num_units), np.intp)
    for position in range(1, costs.num_ops):
        through = best[:, None] + costs.boundary(position)
        # In a tie, the path stays on the same unit.
        chosen = np.where(np.diag(through) <= through.min(axis=0), np.arange(costs.num_units), through.argmin(axis=0))
        before[position] = chosen
        best = through[chosen, np.arange(costs.num_units)] + costs.ops[position]
    path = [int((best + costs.output).argmin())]
    for position in range(costs.num_ops - 1, 0, -1):
        path.append(int(before[position, path[-1]]))
    return path[::-1]


@dataclass(frozen=True, slots=True)
class _Labels:
    """The pairs of time and energy that the operations so far can take if the last of them runs on one unit, the
    fastest first.

    Attributes:
        time: the time of each pair.
        energy: the energy of each pair.
        unit: for each pair, the unit of the previous operation.
        label: for each pair, the index of the previous operation's pair.
    """

    time: NDArray[np.float64]
    energy: NDArray[np.float64]
    unit: NDArray[np.intp]
    label: NDArray[np.intp]


def place_cheapest(time: PathCosts, energy: PathCosts, limit: float) -> list[int] | None:
    """The path of the least energy among those that take at most `limit`, in the unit of `time`; None if none does.

    This is dynamic programming over pairs of time and energy. A pair is dropped if another pair is at least as good in
    both.
    """
    units = range(time.num_units)
    start = time.launch + time.ops[0], energy.launch + energy.ops[0]
    zero = np.zeros(1, np.intp)
    labels = [[_kept(start[0][[unit]], start[1][[unit]], zero, zero, limit) for unit in units]]
    for position in range(1, time.num_ops):
        slower, costlier = time.boundary(position), energy.boundary(position)
        row: list[_Labels] = []
        for unit in units:
            previous = labels[-1]
            times = np.concatenate([each.time + slower[other, unit] for other, each in enumerate(previous)])
            energies = np.concatenate([each.energy + costlier[other, unit] for other, each in enumerate(previous)])
            source = np.concatenate([np.full(len(each.time), other, np.intp) for other, each in enumerate(previous)])
            index = np.concatenate([np.arange(len(each.time), dtype=np.intp) for each in previous])
            row.append(
                _kept(times + time.ops[position, unit], energies + energy.ops[position, unit], source, index, limit)
            )
        labels.append(row)
    ends = [
        (each.energy[index] + energy.output[unit], unit, index)
        for unit, each in enumerate(labels[-1])
        for index in range(len(each.time))
        if each.time[index] + time.output[unit] <= limit
    ]
    if not ends:
        return None
    _, unit, index = min(ends)
    path = [unit]
    for position in range(time.num_ops - 1, 0, -1):
        found = labels[position][unit]
        unit, index = int(found.unit[index]), int(found.label[index])
        path.append(unit)
    return path[::-1]


def _kept(
    time: NDArray[np.float64],
    energy: NDArray[np.float64],
    unit: NDArray[np.intp],
    label: NDArray[np.intp],
    limit: float,
) -> _Labels:
    """Keep the pairs that are possible and within the limit, without pairs that are worse in both time and energy than
    another.
    """
    possible = np.flatnonzero(np.isfinite(time) & (time <= limit))
    order = possible[np.lexsort((energy[possible], time[possible]))]
    lowest = np.minimum.accumulate(energy[order]) if len(order) else energy[order]
    is_better = np.ones(len(order), np.bool_)
    is_better[1:] = energy[order][1:] < lowest[:-1]
    order = order[is_better]
    if len(order) > MOST_LABELS:
        # Keep the pair of least energy, the pair of least time, and evenly spaced pairs between them.
        order = order[np.linspace(0, len(order) - 1, MOST_LABELS).astype(np.intp)]
    return _Labels(time[order], energy[order], unit[order], label[order])


def place_pipeline(costs: PathCosts) -> list[int]:
    """The path whose slowest segment takes the least time. Each unit has at most one segment, so that calls can follow
    each other through the segments as through a pipeline.

    This is dynamic programming over operations, for each order of units. Of equally fast paths, one with the fewest
    segments is chosen.
    """
    sums = np.vstack([np.zeros(costs.num_units), np.cumsum(np.where(np.isinf(costs.ops), 0.0, costs.ops), axis=0)])
    refused = np.vstack([np.zeros(costs.num_units), np.cumsum(np.isinf(costs.ops), axis=0)])
    best = np.inf
    chosen: list[tuple[int, int]] = []
    begin = np.full(costs.num_ops + 1, np.inf)
    begin[0] = 0.0
    # Each entry: the units of the segments so far, in order; for each n, the time of the slowest segment if these units
    # compute the first n operations; and for each segment and n, its first operation if it ends before operation n.
    waiting: list[tuple[tuple[int, ...], NDArray[np.float64], list[NDArray[np.intp]]]] = [((), begin, [])]
    while waiting:
        units, slowest, begins = waiting.pop(0)
        for unit in set(range(costs.num_units)) - set(units):
            own = costs.launch[unit] + (costs.switch[units[-1], unit] + costs.transfer if units else 0.0)
            times = (
                sums[None, :, unit] - sums[:, None, unit] + np.append(np.broadcast_to(own, costs.num_ops), 0)[:, None]
            )
            times[:, -1] += costs.output[unit]
            is_possible = np.triu(refused[None, :, unit] == refused[:, None, unit], 1)
            through = np.where(is_possible, np.maximum(slowest[:, None], times), np.inf)
            where = through.argmin(axis=0)
            now = through[where, np.arange(costs.num_ops + 1)]
            state = (*units, unit), now, [*begins, where]
            waiting.append(state)
            if now[-1] < best * (1 - 1e-9):
                best, chosen = float(now[-1]), _cuts(*state)
    return [unit for unit, count in chosen for _ in range(count)] if chosen else place_fastest(costs)


def _cuts(
    units: Sequence[int], slowest: NDArray[np.float64], begins: Sequence[NDArray[np.intp]]
) -> list[tuple[int, int]]:
    """The units of the pipeline in order, each with the number of its operations."""
    end, found = len(slowest) - 1, list[tuple[int, int]]()
    for unit, where in zip(reversed(units), reversed(begins), strict=True):
        found.append((unit, end - int(where[end])))
        end = int(where[end])
    return found[::-1]


def segment_times(costs: PathCosts, path: Sequence[int]) -> list[float]:
    """The cost of each segment of a path: its operations, its launch, and the transfer of its inputs. The last also has
    the transfer of the output.
    """
    times: list[float] = []
    for position, unit in enumerate(path):
        if not position:
            times.append(float(costs.launch[unit]))
        elif path[position - 1] != unit:
            times.append(float(costs.boundary(position)[path[position - 1], unit]))
        times[-1] += float(costs.ops[position, unit])
    times[-1] += float(costs.output[path[-1]])
    return times
