"""The dispatcher queues the requests of a model, and decides which of them run where and when. `answers` answers them.

Everything here runs on the event loop's thread, except for the batches, which workers run. `_pump` is the main loop: it
asks `Choice` for a batch and its worker, and starts it, until there is nothing to do. It runs when a request arrives,
when a batch ends, and when a timer fires.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from triune.arbiter.arbiter import Arbiter
from triune.config.limits import RunLimit
from triune.config.policy import BatchingPolicy
from triune.core.clock import Clock, Timer
from triune.core.energy import Account
from triune.core.errors import UnavailableError, UnitLostError
from triune.core.power import Power, PowerMode
from triune.core.preference import UnitPreference, joules_per_row
from triune.core.requests import InferenceResponse
from triune.core.servable import Call, only_answer
from triune.core.statistics import FailureReason, ModelStatistics
from triune.core.threads import in_thread_or_here
from triune.core.units import Unit
from triune.scheduling.answers import Answers
from triune.scheduling.batch import Answer, Batch
from triune.scheduling.batcher import Batcher, FormedBatch
from triune.scheduling.call_times import CallTimes
from triune.scheduling.choice import Choice
from triune.scheduling.direct import DirectRuns
from triune.scheduling.divider import Divider
from triune.scheduling.division import Division
from triune.scheduling.health import UnitHealth
from triune.scheduling.kept_costs import KeptCosts
from triune.scheduling.lane import EligibleLanes, Lane, request_ns
from triune.scheduling.objective import Objective
from triune.scheduling.queue import Pending, RequestQueue
from triune.scheduling.turns import Turns
from triune.scheduling.worker import InlineWorker, QuickWorker, Worker

_log = logging.getLogger(__name__)


class Dispatcher:
    """A `Servable` with a queue, a batcher and workers for one version of a model.

    Invariant: `statistics.num_pending == waiting + running` requests, whenever none of its methods is running.
    """

    def __init__(
        self,
        name: str,
        version: int,
        policy: BatchingPolicy,
        outputs: Sequence[str],
        workers: Sequence[Worker],
        statistics: ModelStatistics,
        clock: Clock,
        emulated: Collection[Unit] = (),
        run_limit_seconds: float = math.inf,
        accounts: Mapping[Unit, Account] | None = None,
        power: Power | None = None,
        arbiter: Arbiter | None = None,
        weight: float = 1.0,
        objective_ns: int = 0,
        max_elements: Callable[[], int] | None = None,
        kept: Mapping[Worker, KeptCosts] | None = None,
        times: CallTimes | None = None,
    ) -> None:
        """Args:
        name: the model's name, for answers and messages.
        version: the version, for answers.
        policy: how requests are queued and batched.
        outputs: the model's outputs in order.
        workers: at least one; `close` closes them.
        statistics: the counters that the dispatcher updates, on the loop's thread.
        clock: the clock.
        emulated: units whose workers take only requests that name them, unless all units are emulated.
        run_limit_seconds: the time limit of a batch; after it, its requests get an error and its run is interrupted.
        accounts: the accounts that are charged with the energy of each unit; None if energy is not metered.
        power: the server's power mode; None for full power.
        arbiter: gives turns to models that compete for hardware; None if this is the only one. With an arbiter, the
            dispatcher must be made on the event loop's thread.
        weight: the model's share of the hardware, relative to the weights of other models.
        objective_ns: how long requests should take at most, from arrival to answer; 0 for no objective.
        max_elements: the most elements of a batch of several requests; None for no limit.
        kept: where the times of a worker's batches are stored; None stores none.
        times: where the times of batches that compute alone are recorded by shape; None records none.
        """
        self._name = name
        self._version = version
        self._policy = policy
        self._outputs = tuple(outputs)
        accounts, kept = accounts or {}, kept or {}
        units = list(dict.fromkeys(worker.runner.unit for worker in workers if not worker.runner.is_charging))
        self._turns = Turns(name, units, arbiter, weight, self._pump, self._costs, objective_ns)
        self._times = times
        # The instances of a unit share it, so that each alone says little of the unit.
        timed = {unit for unit in units if [each.runner.unit for each in workers].count(unit) == 1}.difference(emulated)
        self._lanes = [
            Lane(
                worker,
                self._complete,
                None if worker.runner.is_charging else accounts.get(worker.runner.unit),
                self._turns.share_of(worker.runner.unit),
                kept.get(worker),
                times if worker.runner.unit in timed else None,
            )
            for worker in workers
        ]
        preference = UnitPreference(power, statistics) if power is not None else None
        self._eligible = EligibleLanes(self._lanes, emulated, preference)
        self._health = UnitHealth(name, self._lanes, statistics)
        self.statistics = statistics
        statistics.accounts = accounts
        self._clock = clock
        self._queue = RequestQueue(policy)
        # A batch takes at most half of the model's latency objective, so that waiting for more requests may take the
        # other half.
        self._batcher = Batcher(
            policy,
            preference.min_delay_us if preference is not None else None,
            objective_ns // 2000 if objective_ns else None,
            max_elements,
        )
        objective = Objective(objective_ns, partial(joules_per_row, statistics))
        self._choice = Choice(self._lanes, self._eligible, self._batcher, objective)
        is_divisible = not (policy.ragged_inputs or policy.preserve_ordering)
        self._divider = Divider(objective, self._batcher, self._eligible) if is_divisible else None
        self._timer: Timer | None = None
        self._timer_ns = 0
        self._run_limit = RunLimit(clock, run_limit_seconds, self._running, self._give_up)
        self._answers = Answers(name, version, statistics, clock, preserve_ordering=policy.preserve_ordering)
        self._is_closed = False
        self._is_pumping = False
        # If the only worker runs batches on this thread, requests run at once, without queue and batcher.
        self._direct: DirectRuns | None = None
        lone = workers[0] if len(workers) == 1 and policy.max_queue_delay_us == 0 else None
        if isinstance(lone, (InlineWorker, QuickWorker)):
            account = accounts.get(lone.runner.unit)
            unit = lone.runner.unit
            share, recorded = self._turns.share_of(unit), times if unit in timed else None
            self._direct = DirectRuns(name, version, self._outputs, lone, statistics, clock, account, recorded, share)

    @property
    def workers(self) -> Sequence[Worker]:
        """The workers, in the order in which they were given."""
        return [lane.worker for lane in self._lanes]

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        """Run a request at once, or queue it: see `Servable.submit`.

        Raises:
            UnavailableError: the queue is full, the model is being unloaded, or the hardware of its units is gone.
            InvalidArgumentError: the request names a unit that the model is not served on.
        """
        statistics = self.statistics
        if self._is_closed:
            self.statistics.record_failure(FailureReason.REJECTED, 0)
            raise UnavailableError(f"model '{self._name}' is being unloaded; ask the repository index for its state")
        unit = mode = None
        if call.request.parameters:
            unit, mode = self._eligible.unit_of(call.request), self._eligible.mode_of(call.request)
        if statistics.lost and unit is None:
            self._eligible.require()
        # This is faster than the loop's `create_future`, which makes the same object.
        future: asyncio.Future[InferenceResponse] = asyncio.Future()
        now_ns = self._clock.now_ns()
        if self._direct is not None:
            response = self._direct.answer(call, now_ns)
            if response is not None:
                future.set_result(response)
                return future
        self._enqueue(call, future, now_ns, unit, mode)
        return future

    def _enqueue(
        self,
        call: Call,
        future: asyncio.Future[InferenceResponse],
        now_ns: int,
        unit: Unit | None,
        mode: PowerMode | None,
    ) -> None:
        group = self._batcher.group_of(call.inputs)
        if unit is not None or mode is not None:
            group = (unit, mode, group)
        pending = Pending(call, future, now_ns, group=group, unit=unit, mode=mode)
        if self._divider is not None:
            pending = self._divider.first_part(pending)
        try:
            self._queue.push(pending, lambda: request_ns(self._eligible.lanes_of(pending)))
        except UnavailableError:
            self.statistics.record_failure(FailureReason.REJECTED, 0)
            raise
        self.statistics.num_pending += 1
        future.add_done_callback(lambda _: self._withdraw(pending))
        self._turns.arrived(now_ns)
        if unit is not None:
            self._turns.bind(self._queue.named)
        self._pump()

    def _queue_next_part(self, started: Pending, division: Division) -> None:
        """Queue the part of a divided request that follows a part which has started."""
        if self._divider is not None and division.num_left:
            part = self._divider.next_part(division)
            part.level = started.level
            self._queue.append(part)
            if part.unit is not None:
                self._turns.bind(self._queue.named)
            part.future.add_done_callback(lambda _: self._withdraw(part))

    def _costs(self) -> Mapping[Unit, float]:
        """The known time of a request, in ns, on each unit that may run requests which name no unit. It is the time
        under load, if there was load.
        """
        return {
            lane.worker.runner.unit: each
            for lane in self._eligible.usual
            if lane.share is not None and (each := lane.pace.request_ns or lane.any_pace.request_ns)
        }

    def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """Yield the one answer of a request: see `Servable.stream`."""
        return only_answer(self, call)

    async def drain(self) -> None:
        """Start the requests that `max_queue_delay_us` holds back, since no more will come to fill their batch; then
        wait until no request is pending.
        """
        self._batcher.is_ending = True
        self._pump()
        await self._answers.wait_for_all()

    def refuse(self) -> None:
        """Refuse waiting and new requests; running requests finish, also the divided ones of which a part has run."""
        self._is_closed = True
        for pending in [each for each in self._queue if not each.row]:
            self._queue.remove(pending)
            self._answers.fail(pending, UnavailableError(f"model '{self._name}' was unloaded"), FailureReason.REJECTED)
        self._turns.bind(self._queue.named)
        self._turns.return_unused(self._clock.now_ns(), has_waiting=self._queue.has_free)
        self._set_timer(0)
        self.statistics.num_waiting = self._queue.size

    async def close(self) -> None:
        """Refuse waiting and new requests, let running requests finish, and close the workers."""
        self.refuse()
        await self.drain()
        self._run_limit.close()
        for lane in self._lanes:
            await in_thread_or_here(lane.close)
        if self._times is not None:
            await in_thread_or_here(self._times.keep)
        self._turns.close()

    def _pump(self) -> None:
        # A worker on this thread ends its batch within `_start`, and the end of the batch calls `_pump` again. This
        # inner call returns at once, and the outer loop goes on.
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            self._pump_once()
        finally:
            self._is_pumping = False

    def _pump_once(self) -> None:
        now_ns = self._clock.now_ns()
        for pending in self._queue.expire(now_ns):
            waited_ms = (now_ns - pending.arrived_ns) / 1e6
            error = UnavailableError(
                f"Request timeout expired: the request waited {waited_ms:.1f} ms in the queue of model "
                f"'{self._name}'; allow a longer timeout, or send fewer requests at once"
            )
            self._answers.fail(pending, error, FailureReason.REJECTED)
        queue, choice = self._queue, self._choice
        when_ns = 0
        while queue.size:
            chosen = choice.next(queue, now_ns)
            if chosen is None:
                when_ns = choice.when_ns
                break
            lane, batch = chosen
            for pending in batch.pendings:
                queue.begin(pending)
            self._start(lane, batch, now_ns)
            for pending in batch.pendings:
                if pending.division is not None:
                    self._queue_next_part(pending, pending.division)
        num_waiting = self.statistics.num_waiting = queue.size
        self._turns.bind(queue.named)
        for each_ns in (
            self._turns.return_unused(now_ns, has_waiting=queue.has_free),
            queue.next_deadline_ns() if num_waiting else 0,
        ):
            if each_ns and (each_ns < when_ns or not when_ns):
                when_ns = each_ns
        if when_ns != self._timer_ns:
            self._set_timer(when_ns)

    def _start(self, lane: Lane, formed: FormedBatch, now_ns: int) -> None:
        batch = Batch(formed, self._outputs, self._policy)
        self._answers.begin(batch)
        for pending in formed.pendings:
            if pending.call.bill is not None:
                for unit in lane.worker.runner.units:
                    pending.call.bill.ran_on(unit, pending.call.batch_size)
        lane.start(batch, now_ns, len(self._queue))
        if lane.running is not None:
            self._run_limit.watch()

    def _running(self) -> Iterator[tuple[Lane, int]]:
        """Yield each lane whose running batch has not been given up (`_give_up`, at the time limit of runs), and when
        the batch began, in ns of the clock.
        """
        for lane in self._lanes:
            if lane.running is not None and not lane.running.is_given_up:
                yield lane, lane.begun_ns

    def _give_up(self, lane: Lane) -> None:
        """Answer the requests of a batch that exceeds the time limit with an error, and interrupt the batch."""
        batch = lane.running
        assert batch is not None
        batch.is_given_up = True
        error = UnavailableError(
            f"model '{self._name}' did not answer within {self._run_limit.seconds:g} s, and the run was given up; "
            "allow it more by --run-timeout-secs, or by its parameter 'run_timeout_secs'"
        )
        for pending in batch.pendings:
            if not pending.future.done():
                pending.future.set_exception(error)
        _log.error("%s", error)
        lane.worker.runner.interrupt()

    def _complete(self, lane: Lane, batch: Batch) -> None:
        lane.end(batch, self._lanes, has_more=self._queue.has_for(lane.worker.runner.unit))
        lost = next((each for each in batch.answers if isinstance(each, UnitLostError)), None)
        if lost is not None and not lane.is_lost:
            self._lose(lane, batch, lost)
        self._health.record_speed(lane, batch)
        if batch.num_executions:
            self.statistics.record_execution(
                lane.worker.runner.unit,
                batch.num_rows,
                batch.num_executions,
                batch.input_ns,
                batch.infer_ns,
                batch.output_ns,
                [(part.segment, part.unit, part.ended_ns - part.started_ns) for part in batch.parts],
            )
        if batch.is_indivisible and self._batcher.is_batching:
            self._batcher.is_batching = False
            _log.warning(
                "model '%s': requests run one by one from now on: its outputs have no row for each row of inputs",
                self._name,
            )
        if self._queue:
            self._pump()
        self._answers.give(batch)

    def _lose(self, lane: Lane, batch: Batch, error: UnitLostError) -> None:
        """Remove a lane whose hardware is gone. Its requests go to other units, if they may use them."""
        self._eligible.lose(lane, error)
        self._health.record_loss(lane, error)
        for pending in [each for each in self._queue if not self._eligible.lanes_of(each)]:
            self._queue.remove(pending)
            self._answers.fail(pending, error, FailureReason.BACKEND)
        if self._policy.preserve_ordering:
            # The lost requests are not tried again: answers must keep the order of requests, and a second attempt would
            # come after later answers.
            return
        kept: list[tuple[Pending, Answer]] = []
        for pending, answer in zip(batch.pendings, batch.answers, strict=True):
            if pending.future.done() or not isinstance(answer, UnitLostError) or not self._try_again(pending):
                kept.append((pending, answer))
        batch.pendings, batch.answers = [each for each, _ in kept], [answer for _, answer in kept]

    def _try_again(self, pending: Pending) -> bool:
        """Queue a request again, if another unit may compute it and the queue has room."""
        if self._is_closed or not self._eligible.lanes_of(pending):
            return False
        try:
            self._queue.push(pending, lambda: request_ns(self._eligible.lanes_of(pending)))
        except UnavailableError:
            return False
        return True

    def _withdraw(self, pending: Pending) -> None:
        """Remove a request from the queue if the client cancelled it, or a part if another part of its request has
        failed. Called when the future of the request is done.
        """
        is_needless = pending.future.cancelled() or pending.division is not None
        if is_needless and self._queue.remove(pending):
            self._answers.cancel(pending)
            self._pump()

    def _set_timer(self, when_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_ns = when_ns
        if when_ns:
            self._timer = self._clock.call_at(when_ns, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_ns = None, 0
        self._pump()
