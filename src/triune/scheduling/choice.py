"""Decides which waiting requests run next, on which worker, and when."""

from collections.abc import Collection, Sequence

from triune.scheduling.batcher import Batcher, FormedBatch, WaitUntil
from triune.scheduling.lane import EligibleLanes, Lane, choose_lane
from triune.scheduling.objective import Objective
from triune.scheduling.queue import RequestQueue
from triune.scheduling.trials import LaneTrials


class Choice:
    """Decides for one model which requests run next, and on which lane. It takes a turn on the hardware for a batch,
    but does not remove the batch's requests from the queue.

    This runs thousands of times a second: for each request that arrives, and for each batch that ends.

    Attributes:
        when_ns: the time at which to ask again, if `next` found that a larger batch may form until then; else 0.
    """

    def __init__(
        self, lanes: Sequence[Lane], eligible: EligibleLanes, batcher: Batcher, objective: Objective | None
    ) -> None:
        """Args:
        lanes: all lanes of the model.
        eligible: chooses the lanes that a request may use.
        batcher: chooses the requests that run together.
        objective: the latency objective; None for none.
        """
        self.when_ns = 0
        self._lanes = lanes
        self._eligible = eligible
        self._batcher = batcher
        self._objective = objective
        self._trials = LaneTrials(lanes)

    def next(self, queue: RequestQueue, now_ns: int) -> tuple[Lane, FormedBatch] | None:
        """Choose the batch that starts now, and its lane, on which a turn has been taken. None if nothing starts now.

        Args:
            queue: at least one waiting request.
            now_ns: the time.
        """
        self.when_ns = 0
        eligible, batcher = self._eligible, self._batcher
        is_restricted = eligible.is_restricted
        formed: FormedBatch | None = None
        # This loop ends, since the lanes whose turn was refused are not free any more.
        while free := [lane for lane in self._lanes if lane.is_free(now_ns)]:
            if formed is None or is_restricted:
                found = batcher.form(eligible.waiting(queue, free) if is_restricted else queue, now_ns)
                if isinstance(found, WaitUntil):
                    self.when_ns = found.when_ns
                    return None
                if found is None:
                    return None
                formed = found
            lanes = eligible.lanes_of(formed.pendings[0]) if is_restricted else eligible.present
            trial = self._trials.due(lanes, free, formed.pendings[0].call.batch_size)
            lane = trial or self._lane(lanes, free, formed, queue.size, now_ns)
            if lane is None:
                return None
            batch = formed
            if batcher.may_split and not lane.worker.is_inline:
                # A trial batch, which measures how fast a lane is, has one request, so that it takes little time.
                batch = self._cut(lane, formed, is_trial=trial is not None)
            if lane.take_turn(batch):
                self._trials.started(lane, is_trial=trial is not None)
                return lane, batch
        return None

    def _lane(
        self, lanes: Sequence[Lane], free: Collection[Lane], batch: FormedBatch, num_waiting: int, now_ns: int
    ) -> Lane | None:
        """The free lane for a batch; None if the batch should wait for a busy lane."""
        if self._objective is not None and len(lanes) > 1:
            lane = self._objective.choose(lanes, batch, now_ns)
            if lane is not None:
                return lane if lane in free else None
        return choose_lane(lanes, free, batch, num_waiting, now_ns)

    def _cut(self, lane: Lane, formed: FormedBatch, *, is_trial: bool) -> FormedBatch:
        """Return a batch of the first requests of a formed batch: as many as a lane should compute now. If the first
        one is a part of a divided request that takes the lane longer than the objective allows, the part is cut.
        """
        num_rows = 1 if is_trial else formed.num_rows
        if num_rows > 1 and self._objective is not None:
            num_rows = min(num_rows, self._objective.rows(lane, formed))
        first = formed.pendings[0]
        if first.division is not None and num_rows < first.call.batch_size:
            first.division.shrink(first, num_rows)
            return FormedBatch.of(formed.pendings[:1], first.call.batch_size)
        return formed.first(num_rows if is_trial else lane.sizer.choose(num_rows))
