"""A latency objective: it limits the size of batches, and chooses the cheapest unit that meets it."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from triune.core.units import Unit
from triune.scheduling.batcher import FormedBatch
from triune.scheduling.lane import Lane

_NEAR: Final = 1.1
"""If no number of rows is computed in time, one counts as good if it takes at most this many times the least time."""


class Objective:
    """How long a model's requests should take at most, from arrival to answer.

    A request waits for the batch that runs when it arrives, and is computed in the next one. So a batch should take at
    most half of the objective: it gets fewer requests for that, but at least one. Among the units that answer in time,
    the one with the fewest joules per row computes the batch, if the joules of all units are known.

    Requests of other models wait for this model's batches, too. So a batch also takes at most half of the least
    objective of the other models that use the same hardware (`Share.others_objective_ns`).
    """

    def __init__(self, objective_ns: int, joules_per_row: Callable[[Unit], float]) -> None:
        """Args:
        objective_ns: the model's own latency objective, in nanoseconds; 0 if it has none.
        joules_per_row: returns the joules per row on a unit, as counted so far; 0 if unknown.
        """
        self._objective_ns = objective_ns
        self._joules_per_row = joules_per_row

    def rows(self, lane: Lane, batch: FormedBatch) -> int:
        """The most rows of `batch` that a lane can compute within half of the objectives; at least 1."""
        return self.rows_within(lane, batch.num_rows, batch.num_elements)

    def rows_within(self, lane: Lane, num_rows: int, num_elements: int) -> int:
        """How many of `num_rows` rows, with `num_elements` elements together, a lane can compute within half of the
        objectives; at least 1, and a power of two if not all of them. If none is computed in time, as many as take
        about the least time: fewer would be computed in more batches, as long each.
        """
        if num_rows < 2:
            return num_rows
        own, share = self._objective_ns, lane.share
        others = share.others_objective_ns() if share is not None else 0
        if not own and not others:
            return num_rows
        own_ns, others_ns = own / 2 or math.inf, others / 2 or math.inf
        per_row = num_elements / num_rows
        found = 1 << (num_rows - 1).bit_length()
        times: list[tuple[int, float]] = []
        while found:
            size = max(1, round(per_row * min(found, num_rows)))
            # Others wait for its turn. What it takes longer while they compute, too, is no reason for smaller batches.
            alone = lane.alone if lane.alone.knows(size) else lane.cost
            cost_ns = lane.cost.of(size)
            if cost_ns <= own_ns and alone.of(size) <= others_ns:
                return min(found, num_rows)
            times.append((found, cost_ns))
            found //= 2
        least_ns = min(cost_ns for _, cost_ns in times)
        return min(num_rows, max(each for each, cost_ns in times if cost_ns <= _NEAR * least_ns))

    def choose(self, lanes: Sequence[Lane], batch: FormedBatch, now_ns: int) -> Lane | None:
        """The cheapest lane that answers a batch in time; None if none does, or if no joules or no objective are known.

        The lane may be busy, in which case the batch waits for it.
        """
        if not self._objective_ns:
            return None
        joules = {lane: self._joules_per_row(lane.worker.runner.unit) for lane in lanes}
        if len(lanes) < 2 or not all(joules.values()):
            return None
        size = batch.num_elements
        left_ns = min(each.arrived_ns for each in batch.pendings) + self._objective_ns - now_ns
        in_time = [lane for lane in lanes if lane.remaining_ns(now_ns) + lane.cost.of(size) <= left_ns]
        return min(in_time, key=lambda lane: joules[lane], default=None)
