"""Decides which requests are computed in parts, and how many rows each part has."""

from triune.scheduling.batcher import Batcher
from triune.scheduling.division import Division
from triune.scheduling.lane import EligibleLanes
from triune.scheduling.objective import Objective
from triune.scheduling.queue import Pending


class Divider:
    """Divides the requests whose rows take longer than half of a model's latency objective, which is what the objective
    allows a batch.
    """

    def __init__(self, objective: Objective, batcher: Batcher, eligible: EligibleLanes) -> None:
        """Args:
        objective: the latency objective.
        batcher: only requests that it may batch are divided: their rows do not depend on each other.
        eligible: chooses the lanes that a request may use.
        """
        self._objective = objective
        self._batcher = batcher
        self._eligible = eligible

    def first_part(self, pending: Pending) -> Pending:
        """The first part of a new request, or the request itself if it is not divided."""
        call, batcher = pending.call, self._batcher
        if call.batch_size < 2 or call.size is not None or not (batcher.is_batching and batcher.may_split):
            return pending
        num_rows = self._num_rows(pending, call.batch_size)
        return Division(pending).next(num_rows) if num_rows < call.batch_size else pending

    def next_part(self, division: Division) -> Pending:
        """The next part of a divided request that has rows left."""
        return division.next(self._num_rows(division.whole, division.num_left))

    def _num_rows(self, pending: Pending, num_rows: int) -> int:
        """How many of `num_rows` rows of a request the fastest lane computes within half of the objective."""
        num_elements = round(pending.num_elements / pending.call.batch_size * num_rows)
        lanes = self._eligible.lanes_of(pending)
        found = (self._objective.rows_within(lane, num_rows, num_elements) for lane in lanes)
        return max(found, default=num_rows)
