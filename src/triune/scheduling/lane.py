"""Which worker a batch goes to."""

import functools
from collections.abc import Callable, Collection, Iterable, Sequence

from triune.config.policy import MIN_WAITING
from triune.core.errors import InvalidArgumentError
from triune.core.requests import UNIT_PARAMETER, InferenceRequest
from triune.core.units import Unit
from triune.scheduling.batch import Batch, num_elements
from triune.scheduling.cost import CostEstimate, Pace
from triune.scheduling.queue import Pending, RequestQueue
from triune.scheduling.sizer import BatchSizer
from triune.scheduling.worker import Worker


class Lane:
    """A worker, what it runs now, and what it is known to take.

    Attributes:
        worker: runs one batch at a time.
        done: to be called with the batch that the worker has run.
        cost: what batches took here.
        pace: how many requests it does in what time while many wait.
        sizer: how many rows it does best to take.
        running: the batch under way.
        begun_ns: when it began.
    """

    def __init__(self, worker: Worker, complete: "Callable[[Lane, Batch], None]") -> None:
        """`complete` is called, on the event loop's thread, with the lane and the batch that has run."""
        self.worker = worker
        self.done = functools.partial(complete, self)
        self.cost = CostEstimate()
        self.pace = Pace()
        self.sizer = BatchSizer()
        self.running: Batch | None = None
        self.begun_ns = 0
        self._busy_ns = 0
        self._is_pressed = False

    def start(self, batch: Batch, now_ns: int, num_waiting: int) -> None:
        """Give the worker a batch, while so many other requests wait. It has none."""
        self._is_pressed = num_waiting >= MIN_WAITING
        self.sizer.record_start(batch.num_rows, now_ns, self._busy_ns)
        self.running, self.begun_ns = batch, now_ns
        self.worker.start(batch, self.done)

    def end(self, batch: Batch) -> None:
        """Its worker has run `batch`."""
        self.running = None
        self._busy_ns = batch.ended_ns - batch.started_ns
        self.cost.record(num_elements(batch.pendings), self._busy_ns)
        # Where few wait batches are small, and slower by the request than they would be.
        if self._is_pressed:
            self.pace.record(len(batch.pendings), self._busy_ns)

    def remaining_ns(self, now_ns: int) -> float:
        """How long until it is free, as far as is known."""
        if self.running is None:
            return 0.0
        return max(0.0, self.begun_ns + self.cost.of(num_elements(self.running.pendings)) - now_ns)


class EligibleLanes:
    """Which lanes a request may go to: those of the unit that it names, else all but the emulated ones.

    A model on nothing but emulated units was put there by name, so any request will do.

    Attributes:
        is_divided: there are requests that may not go to every lane.
    """

    def __init__(self, lanes: Sequence[Lane], emulated: Collection[Unit]) -> None:
        """Args:
        lanes: all of a model's.
        emulated: units that give answers, and no speed.
        """
        self._lanes = lanes
        self._units = {lane.worker.runner.unit for lane in lanes}
        self._usual = self._units.difference(emulated) or self._units
        self.is_divided = self._usual != self._units

    def unit_of(self, request: InferenceRequest) -> Unit | None:
        """The unit that a request names, None if it names none.

        Raises:
            InvalidArgumentError: the model has no lane of that unit.
        """
        name = request.parameters.get(UNIT_PARAMETER)
        if name is None:
            return None
        for unit in self._units:
            if unit.value == name:
                self.is_divided = self.is_divided or len(self._units) > 1
                return unit
        raise InvalidArgumentError(
            f"the request's parameter '{UNIT_PARAMETER}' is {name!r}, but model '{request.model}' is served on "
            f"{', '.join(sorted(unit.value for unit in self._units))}; name one of these, or none"
        )

    def lanes_of(self, pending: Pending) -> Sequence[Lane]:
        """Where a request may go."""
        if not self.is_divided:
            return self._lanes
        units = self._usual if pending.unit is None else (pending.unit,)
        return [lane for lane in self._lanes if lane.worker.runner.unit in units]

    def waiting(self, queue: RequestQueue) -> Iterable[Pending]:
        """The requests of a queue that have a free lane."""
        if not self.is_divided:
            return queue
        return [each for each in queue if any(lane.running is None for lane in self.lanes_of(each))]


def request_ns(lanes: Sequence[Lane]) -> float:
    """How soon after each request the next is done while many wait for these workers; 0 where that is not known."""
    paces = [lane.pace.request_ns for lane in lanes if lane.pace.request_ns]
    return 1 / sum(1 / each for each in paces) if paces else 0.0


def choose_lane(lanes: Sequence[Lane], pendings: Sequence[Pending], num_waiting: int, now_ns: int) -> Lane | None:
    """The free worker that finishes a batch soonest; None if the busy ones, faster, will have done it before.

    A slow unit helps as long as the fast ones would need longer for everything that waits.

    Args:
        lanes: at least one is free.
        pendings: the batch.
        num_waiting: requests that wait, those of the batch included.
        now_ns: the time.
    """
    if len(lanes) == 1:
        return lanes[0]
    size = num_elements(pendings)
    free = min((lane for lane in lanes if lane.running is None), key=lambda lane: lane.cost.of(size))
    finish_ns = free.cost.of(size)
    num_batches = -(-num_waiting // len(pendings))
    for lane in lanes:
        if lane.running is not None and lane.remaining_ns(now_ns) + num_batches * lane.cost.of(size) < finish_ns:
            return None
    return free
