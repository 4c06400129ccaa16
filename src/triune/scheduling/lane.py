"""Lanes: the dispatcher's records of workers. `choose_lane` chooses the worker for a batch."""

import functools
import math
from collections.abc import Callable, Collection, Iterable, Sequence

from triune.arbiter.cost import CostEstimate
from triune.arbiter.pool import Turn, remaining_ns
from triune.arbiter.share import Share
from triune.config.policy import MIN_WAITING
from triune.core.energy import Account, Work
from triune.core.errors import InvalidArgumentError, UnitLostError
from triune.core.power import POWER_PARAMETER, PowerMode, mode_of
from triune.core.preference import UnitPreference
from triune.core.requests import UNIT_PARAMETER, InferenceRequest
from triune.core.units import Unit
from triune.hardware.heat.slowing import SpeedWatch
from triune.scheduling.batch import Batch
from triune.scheduling.batcher import FormedBatch
from triune.scheduling.call_times import CallTimes
from triune.scheduling.kept_costs import KeptCosts
from triune.scheduling.pace import Pace
from triune.scheduling.queue import Pending, RequestQueue
from triune.scheduling.sizer import BatchSizer
from triune.scheduling.worker import Worker

_QUICK_NS = 2_000_000
"""If the previous batch took fewer nanoseconds than this, only the total time of batches is charged
(`Account.quick_ns`): recording each of thousands of batches per second would cost some percent of the time.
"""

_METERED = 16
"""If the energy of single batches is wanted (`CallTimes`), one in this many of the quick ones is recorded by itself."""


class Lane:
    """A worker, with its running batch and its measured speed.

    Attributes:
        worker: the worker, which runs one batch at a time.
        done: the function that is called with each batch that has ended.
        share: the model's share of the hardware; None if no other model competes for it.
        cost: the estimated run time of a batch by its size.
        alone: the estimated run time by batch size, from batches during which no other model computed.
        pace: the time per request under load.
        any_pace: the time per request, whatever the load.
        sizer: chooses the batch size with the highest throughput.
        speed: notices that the unit slows down; None if the time of a batch depends on its values.
        running: the running batch; None if the worker is free.
        begun_ns: the time at which the running batch started.
        is_lost: whether the unit's hardware is gone, so that no batch may start any more.
    """

    def __init__(
        self,
        worker: Worker,
        complete: "Callable[[Lane, Batch], None]",
        account: Account | None = None,
        share: Share | None = None,
        kept: KeptCosts | None = None,
        times: CallTimes | None = None,
    ) -> None:
        """Args:
        worker: the worker.
        complete: the function that is called on the event loop's thread with the lane and the finished batch.
        account: the account that is charged with the energy of the lane's batches; None if energy is not metered.
        share: the model's share of the hardware; None if no other model competes for it.
        kept: the times of batches of an earlier load, with which the estimates begin; None for none.
        times: where the times of batches that compute alone are recorded by shape; None records none.
        """
        self.worker = worker
        self._kept = kept
        self._times = times
        self.share = share
        self.done = functools.partial(complete, self)
        self.cost = CostEstimate()
        if kept is not None:
            self.cost.adopt(kept.found)
        # Batches of some sizes seldom compute alone.
        self.alone = CostEstimate(stale_after=math.inf)
        self.pace = Pace()
        self.any_pace = Pace()
        self.sizer = BatchSizer()
        self.speed = SpeedWatch() if worker.runner.is_steady else None
        self.running: Batch | None = None
        self.begun_ns = 0
        self.is_lost = False
        self._account = account
        self._turn: Turn | None = None
        self._work: Work | None = None
        self._num_quick = 0
        self._busy_ns = 0
        self._part_ns = 0
        self._ended_ns = 0
        self._waited_ns = 0
        self._expected_ns = 0.0
        self._is_loaded = False

    def is_free(self, now_ns: int) -> bool:
        """Whether a batch may start, as far as known: the worker is free, and the model does not wait for a turn on the
        hardware.
        """
        if self.running is not None or self.is_lost:
            return False
        share = self.share
        return share is None or not share.is_asking or not share.is_blocked(now_ns)

    def take_turn(self, batch: FormedBatch) -> bool:
        """Take a turn on the hardware for a batch. Returns whether it may start now. If not, the lane is not free until
        the model gets its turn.

        Batches on the event loop's thread are so short that they take no turn.
        """
        if self.share is None or self.worker.is_inline:
            return True
        expected_ns = request_ns = self.cost.of(batch.num_elements)
        if len(batch.pendings) > 1:
            request_ns = self.cost.of(max([each.num_elements for each in batch.pendings]))
        alone_ns = self.alone.of(batch.num_elements) if self.alone.knows(batch.num_elements) else 0.0
        self._turn = self.share.start(self.worker.runner.unit, expected_ns, request_ns, alone_ns)
        return self._turn is not None

    def start(self, batch: Batch, now_ns: int, num_waiting: int) -> None:
        """Start a batch while `num_waiting` other requests wait. The worker must be free."""
        self._is_loaded = num_waiting >= MIN_WAITING
        waited_ns, self._waited_ns = self._waited_ns, 0 if self.share is None else self.share.waited_ns
        # A model that waits for the turn of its second unit while its first one computes has waited for no other model.
        waited_ns = min(self._waited_ns - waited_ns, max(0, now_ns - self._ended_ns))
        others_ns = self._busy_ns - self._part_ns
        self.sizer.record_start(batch.num_rows, now_ns, self._part_ns, others_ns + waited_ns)
        self.running, self.begun_ns, self._expected_ns = batch, now_ns, self.cost.of(batch.num_elements)
        if self._account is not None and (not self._is_quick(batch) or self._is_sampled()):
            rows = [(each.call.batch_size, each.call.bill) for each in batch.pendings]
            self._work = self._account.begin_batch(now_ns, rows)
        self.worker.start(batch, self.done)

    def _is_quick(self, batch: Batch) -> bool:
        """Whether the batch is expected to be short, and none of its requests asks for its energy."""
        return 0 < self._busy_ns < _QUICK_NS and all(each.call.bill is None for each in batch.pendings)

    def _is_sampled(self) -> bool:
        """Whether a quick batch is one of the few whose energy is recorded by itself."""
        self._num_quick += 1
        return self._times is not None and self._num_quick % _METERED == 0

    def end(self, batch: Batch, lanes: "Sequence[Lane]", *, has_more: bool = False) -> None:
        """Record that the worker has finished `batch`.

        Args:
            batch: the batch.
            lanes: all lanes of the model.
            has_more: whether more requests wait.
        """
        self.running = None
        work, self._work = self._work, None
        if work is not None:
            work.ended_ns = max(batch.ended_ns, work.started_ns)
        elif self._account is not None:
            self._account.quick_ns += batch.ended_ns - batch.started_ns
        self._busy_ns = self._part_ns = batch.ended_ns - batch.started_ns
        self._ended_ns = batch.ended_ns
        size, has_run = batch.num_elements, batch.num_executions > 0
        # Only batches that ran are recorded: a worker whose runtime has failed refuses batches at once, and would look
        # like the fastest.
        if has_run:
            self.cost.record(size, self._busy_ns)
        if self.share is not None and self._turn is not None:
            was_alone = has_run and self.share.was_alone(self._turn)
            if was_alone:
                self.alone.record(size, self._busy_ns)
                if self._times is not None:
                    self._times.record(self.worker.runner.unit, batch, work)
            is_known = self.alone.knows(size)
            next_ns = (self.alone if is_known else self.cost).of(size) if has_more else None
            compared = [self] if self.share.has_own_turns else lanes
            alone_ns = self._alone_ns(size, compared, was_alone=was_alone)
            part_ns = self.share.end(self._turn, alone_ns, next_ns, is_known=is_known or was_alone)
            self._part_ns = min(self._busy_ns, int(part_ns))
            self._turn = None
        if not has_run:
            return
        self.any_pace.record(len(batch.pendings), self._busy_ns)
        # Record in `pace` only batches that started while many requests waited: others are small, and take more time
        # per request than under load.
        if self._is_loaded:
            self.pace.record(len(batch.pendings), self._busy_ns)

    def _alone_ns(self, size: int, lanes: "Sequence[Lane]", *, was_alone: bool) -> float:
        """How long the batch that has ended takes in ns on the fastest of `lanes` without competition, as far as that
        was measured for batches of this size. If it `was_alone`, that is its own time, times the ratio of the lanes.

        Only if the model's units compute at once, a batch on a slow one is worth no more than on the fastest one. If
        they take turns, which of them computes does not depend on how many models compute at once.
        """
        known = [lane.alone.of(size) for lane in lanes if lane.alone.knows(size)]
        if was_alone:
            return self._busy_ns * (min(known) / self.alone.of(size) if self.alone.knows(size) else 1.0)
        return min(known) if self.alone.knows(size) else min([self._busy_ns, *known])

    def close(self) -> None:
        """Close the worker, and store the times of its batches for later loads. Blocks."""
        self.worker.close()
        if self._kept is not None and (costs := self.cost.costs()):
            self._kept.keep(costs)

    def remaining_ns(self, now_ns: int) -> float:
        """The estimated time until the worker is free, in ns: see `arbiter.pool.remaining_ns`. If it runs nothing, the
        time until the model's turn on the hardware; 0 if the model waits for no turn.
        """
        if self.running is None:
            return 0.0 if self.share is None else self.share.wait_ns(now_ns)
        return remaining_ns(self._expected_ns, now_ns - self.begun_ns)


class EligibleLanes:
    """The lanes that a request may use: the lanes of the unit that it names, else all lanes of units that are not
    emulated.

    If all units of a model are emulated, any request may use them, since the config must have named them.
    """

    def __init__(
        self, lanes: Sequence[Lane], emulated: Collection[Unit], preference: UnitPreference | None = None
    ) -> None:
        """Args:
        lanes: all lanes of the model.
        emulated: the emulated units.
        preference: excludes units according to the power mode; None excludes none.
        """
        self._preference = preference
        self._lost: dict[Unit, UnitLostError] = {}
        self._lanes = list(lanes)
        self._units = {lane.worker.runner.unit for lane in lanes}
        self._usual = self._units.difference(emulated) or self._units
        self._is_restricted = self._usual != self._units

    def lose(self, lane: Lane, error: UnitLostError) -> None:
        """Remove a lane whose hardware is gone from the choice of all requests. Emulated units do not replace it."""
        lane.is_lost = True
        self._lanes.remove(lane)
        unit = lane.worker.runner.unit
        self._units = {each.worker.runner.unit for each in self._lanes}
        if unit not in self._units:
            self._lost[unit] = error
        self._usual = self._usual & self._units
        # From now on the lanes of each request are looked up, since some waiting requests may name the lost unit.
        self._is_restricted = True

    def require(self) -> None:
        """Raise UnitLostError if no unit is left for requests that name none."""
        if not self._usual:
            raise next(iter(self._lost.values()))

    @property
    def is_restricted(self) -> bool:
        """Whether some requests may not use every lane."""
        preference = self._preference
        return self._is_restricted or (len(self._usual) > 1 and preference is not None and preference.is_restricting)

    def unit_of(self, request: InferenceRequest) -> Unit | None:
        """The unit that a request names; None if it names none.

        Raises:
            InvalidArgumentError: the model has no lane of that unit, or is cut into segments on several units.
            UnitLostError: the hardware of that unit is gone.
        """
        name = request.parameters.get(UNIT_PARAMETER)
        if name is None:
            return None
        if cut := next((each for each in self._lanes if len(each.worker.runner.units) > 1), None):
            units = ", ".join(unit.value for unit in cut.worker.runner.units)
            raise InvalidArgumentError(
                f"the request's parameter '{UNIT_PARAMETER}' is {name!r}, but model '{request.model}' is cut into "
                f"segments on {units}, and each request passes through all of them; name no unit"
            )
        for unit in self._units:
            if unit.value == name:
                self._is_restricted = self._is_restricted or len(self._units) > 1
                return unit
        if lost := next((error for unit, error in self._lost.items() if unit.value == name), None):
            raise lost
        raise InvalidArgumentError(
            f"the request's parameter '{UNIT_PARAMETER}' is {name!r}, but model '{request.model}' is served on "
            f"{', '.join(sorted(unit.value for unit in self._units))}; name one of these, or none"
        )

    def mode_of(self, request: InferenceRequest) -> PowerMode | None:
        """The power mode that a request names; None if it names none. Raises InvalidArgumentError for an unknown
        mode.
        """
        name = request.parameters.get(POWER_PARAMETER)
        if name is None:
            return None
        mode = mode_of(name)
        self._is_restricted = self._is_restricted or len(self._usual) > 1
        return mode

    @property
    def present(self) -> Sequence[Lane]:
        """The lanes whose hardware is present."""
        return self._lanes

    @property
    def usual(self) -> Sequence[Lane]:
        """The lanes of requests that name no unit, without restrictions of the power mode."""
        return [lane for lane in self._lanes if lane.worker.runner.unit in self._usual]

    def lanes_of(self, pending: Pending) -> Sequence[Lane]:
        """The lanes that a request may use."""
        if not self.is_restricted:
            return self._lanes
        if pending.unit is None and not self._usual:
            return []
        if pending.unit is not None:
            units: Collection[Unit] = (pending.unit,)
        elif self._preference is not None:
            units = self._preference.units(self._usual, pending.mode)
        else:
            units = self._usual
        return [lane for lane in self._lanes if lane.worker.runner.unit in units]

    def waiting(self, queue: RequestQueue, free: Collection[Lane]) -> Iterable[Pending]:
        """The requests of the queue that could start now, because one of the lanes that they may use is free."""
        if not self.is_restricted:
            return queue
        return [each for each in queue if any(lane in free for lane in self.lanes_of(each))]


def request_ns(lanes: Sequence[Lane]) -> float:
    """The average time from one finished request to the next when the workers of all `lanes` are under load, in ns; 0
    if unknown.
    """
    paces = [lane.pace.request_ns for lane in lanes if lane.pace.request_ns]
    return 1 / sum(1 / each for each in paces) if paces else 0.0


def choose_lane(
    lanes: Sequence[Lane], free: Collection[Lane], batch: FormedBatch, num_waiting: int, now_ns: int
) -> Lane | None:
    """Choose the free worker that takes the least time; None if a worker that is still busy would end the batch first.

    So a slow unit gets a batch only if the fast units, which must run all waiting requests before it, would finish it
    later.

    Args:
        lanes: the workers that may run the batch.
        free: the free workers, including at least one of `lanes`.
        batch: the batch.
        num_waiting: the number of waiting requests, including those of the batch.
        now_ns: the current time.
    """
    if len(lanes) == 1:
        return lanes[0]
    size = batch.num_elements
    chosen, finish_ns = None, math.inf
    busy: list[tuple[Lane, float]] = []
    for lane in lanes:
        takes_ns = lane.cost.of(size)
        if lane not in free:
            busy.append((lane, takes_ns))
        elif takes_ns < finish_ns:
            chosen, finish_ns = lane, takes_ns
    if busy:
        num_batches = -(-num_waiting // len(batch.pendings))
        for lane, takes_ns in busy:
            all_ns = num_batches * takes_ns
            if all_ns < finish_ns and lane.remaining_ns(now_ns) + all_ns < finish_ns:
                return None
    if chosen is None or chosen.share is None or chosen.share.num_units < 2 or not chosen.alone.knows(size):
        return chosen
    # What competes for the hardware slows all of its units. So their times alone are compared: those beside others come
    # from different moments, and a unit that gets no batches would keep the time of a bad one.
    same = [lane for lane in lanes if lane.share is chosen.share and lane in free and lane.alone.knows(size)]
    return min(same, key=lambda lane: lane.alone.of(size))
