"""The dispatcher queues the requests of a model, decides which run where and when, and answers them.

Everything here runs on the event loop's thread, except for the batches, which workers run. `_pump` is the main loop: it
asks the batcher for a batch, chooses a worker and starts it, until there is nothing to do. It runs when a request
arrives, when a batch ends, and when a timer fires.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from functools import partial

from triune.arbiter.arbiter import Arbiter
from triune.arbiter.share import Share
from triune.config.limits import RunLimit
from triune.config.policy import BatchingPolicy
from triune.core.clock import Clock, Timer
from triune.core.datatypes import Array
from triune.core.energy import Account
from triune.core.errors import TriuneError, UnavailableError, UnitLostError, defect_of
from triune.core.finishing import Finishing
from triune.core.power import Power
from triune.core.preference import UnitPreference
from triune.core.requests import InferenceResponse
from triune.core.servable import Call, only_answer
from triune.core.statistics import FailureReason, ModelStatistics
from triune.core.threads import in_thread_or_here
from triune.core.units import Unit
from triune.hardware.heat.slowing import SpeedWatch
from triune.scheduling.batch import Answer, Batch, num_elements
from triune.scheduling.batcher import Batcher, WaitUntil
from triune.scheduling.lane import EligibleLanes, Lane, choose_lane, request_ns
from triune.scheduling.queue import Pending, RequestQueue
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
        accounts: are charged with the energy of each unit; None where it is not metered.
        power: the server's power mode; None for full power.
        arbiter: gives turns to models that compete for hardware; None if this is the only one. Then the dispatcher is
            made on the event loop's thread.
        weight: the model's part of the hardware, in relation to that of others.
        """
        self._name = name
        self._version = version
        self._policy = policy
        self._outputs = tuple(outputs)
        accounts = accounts or {}
        units = list(dict.fromkeys(worker.runner.unit for worker in workers))
        shares: Mapping[Unit, Share] = arbiter.join(name, units, self._on_turn, weight) if arbiter is not None else {}
        self._shares = list(dict.fromkeys(shares.values()))
        self._loop = asyncio.get_running_loop() if shares else None
        self._lanes = [
            Lane(
                worker,
                self._complete,
                None if worker.runner.is_charging else accounts.get(worker.runner.unit),
                shares.get(worker.runner.unit),
            )
            for worker in workers
        ]
        preference = UnitPreference(power, statistics) if power is not None else None
        self._eligible = EligibleLanes(self._lanes, emulated, preference)
        self.statistics = statistics
        statistics.accounts = accounts
        self._clock = clock
        self._queue = RequestQueue(policy)
        self._batcher = Batcher(policy, preference.min_delay_us if preference is not None else None)
        self._timer: Timer | None = None
        self._run_limit = RunLimit(clock, run_limit_seconds, self._running, self._give_up)
        self._started: deque[Batch] = deque()
        self._unfinished: set[Batch] = set()
        self._finishing = Finishing()
        self._idle: asyncio.Event | None = None
        self._is_closed = False
        self._is_pumping = False
        # If the only worker runs batches on this thread, requests run at once, without queue and batcher.
        lone = workers[0] if len(workers) == 1 and policy.max_queue_delay_us == 0 else None
        self._direct = lone if isinstance(lone, (InlineWorker, QuickWorker)) else None
        self._direct_account = accounts.get(workers[0].runner.unit)

    @property
    def workers(self) -> Sequence[Worker]:
        """The workers, in the order given."""
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
        unit = self._eligible.unit_of(call.request) if call.request.parameters else None
        mode = self._eligible.mode_of(call.request) if call.request.parameters else None
        if unit is None and self.statistics.lost:
            self._eligible.require()
        future = asyncio.get_running_loop().create_future()
        now_ns = self._clock.now_ns()
        if self._direct is not None and self._direct.is_inline:
            response = self._run_directly(self._direct, call, now_ns)
            if response is not None:
                future.set_result(response)
                return future
        group = self._batcher.group_of(call.inputs)
        if unit is not None or mode is not None:
            group = (unit, mode, group)
        pending = Pending(call, future, now_ns, group=group, unit=unit, mode=mode)
        try:
            self._queue.push(pending, lambda: request_ns(self._eligible.lanes_of(pending)))
        except UnavailableError:
            self.statistics.record_failure(FailureReason.REJECTED, 0)
            raise
        statistics.num_pending += 1
        future.add_done_callback(lambda _: self._withdraw(pending))
        self._pump()
        return future

    def _run_directly(
        self, worker: InlineWorker | QuickWorker, call: Call, arrived_ns: int
    ) -> InferenceResponse | None:
        """Answer a request without queue and batch, whose objects would take as long to create as a small model to run.

        Returns:
            the answer; None after any error, and if it takes long to finish. The request then takes the usual way,
            which reports and counts errors, and finishes in a thread.
        """
        executable, request = worker.runner.executable, call.request
        names = [output.name for output in request.outputs] if request.outputs else self._outputs
        try:
            outputs = executable.run(call.inputs, names)
            ended_ns = self._clock.now_ns()
            response = InferenceResponse(self._name, self._version, outputs, request.id)
            if call.finish is not None:
                if not call.finish.is_quick(outputs):
                    return None
                response = call.finish.convert(response)
        except Exception:  # noqa: BLE001 - the normal path runs the small model again, and reports the error
            elapsed_ns = self._clock.now_ns() - arrived_ns
            if worker.charge(elapsed_ns):
                worker.leave(elapsed_ns, partial(executable.run, call.inputs, names))
            return None
        elapsed_ns = ended_ns - arrived_ns
        if worker.charge(elapsed_ns):
            worker.leave(elapsed_ns, partial(executable.run, call.inputs, names))
        if call.bill is not None:
            call.bill.ran_on(executable.unit, call.batch_size)
        if (account := self._direct_account) is not None:
            if call.bill is None:
                account.quick_ns += elapsed_ns
            else:
                account.ran(arrived_ns, ended_ns, call.bill)
        statistics = self.statistics
        statistics.record_alone(executable.unit, call.batch_size, elapsed_ns)
        if statistics.distributions is not None:
            latencies_ns = (elapsed_ns, 0, 0, elapsed_ns, 0)
            statistics.distributions.record(latencies_ns, call.inputs.values(), response.outputs.values())
        if call.compute_time is not None:
            call.compute_time.add(0, elapsed_ns, 0)
        statistics.last_inference_ms = time.time_ns() // 1_000_000
        return response

    def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """Yield the one answer of a request: see `Servable.stream`."""
        return only_answer(self, call)

    async def drain(self) -> None:
        """Start the requests that `max_queue_delay_us` holds back, since no more will come to fill their batch; then
        wait until no request is pending.
        """
        self._batcher.is_ending = True
        self._pump()
        while self.statistics.num_pending:
            idle = self._idle = self._idle or asyncio.Event()
            await idle.wait()

    def refuse(self) -> None:
        """Refuse waiting and new requests; running requests finish."""
        self._is_closed = True
        for pending in list(self._queue):
            self._queue.remove(pending)
            self._fail(pending, UnavailableError(f"model '{self._name}' was unloaded"), FailureReason.REJECTED)
        self._return_turns()
        self._set_timer(0)
        self.statistics.num_waiting = 0

    async def close(self) -> None:
        """Refuse waiting and new requests, let running requests finish, and close the workers."""
        self.refuse()
        await self.drain()
        self._run_limit.close()
        for lane in self._lanes:
            await in_thread_or_here(lane.worker.close)
        for share in self._shares:
            share.close()

    def _pump(self) -> None:
        # A worker on this thread ends its batch within `_start`, which calls `_pump` again. Return then: the loop goes
        # on.
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
            self._fail(pending, error, FailureReason.REJECTED)
        when_ns = 0
        while self._queue and any(lane.is_free for lane in self._lanes):
            decision = self._batcher.form(self._eligible.waiting(self._queue), now_ns)
            if isinstance(decision, WaitUntil):
                when_ns = decision.when_ns
                break
            if decision is None:
                break
            lanes = self._eligible.lanes_of(decision.pendings[0])
            lane = choose_lane(lanes, decision.pendings, len(self._queue), now_ns)
            if lane is None:
                break
            if self._batcher.may_split and not lane.worker.is_inline:
                decision = decision.first(lane.sizer.choose(decision.num_rows))
            if not lane.take_turn(decision.pendings):
                continue
            for pending in decision.pendings:
                self._queue.remove(pending)
            self._start(lane, decision.pendings, decision.num_rows, now_ns)
        self._return_turns()
        deadline_ns = self._queue.next_deadline_ns() if self._queue else 0
        patience_ns = min((share.patience_ends_ns for share in self._shares if share.is_waiting), default=0)
        self._set_timer(min(filter(None, (when_ns, deadline_ns, patience_ns)), default=0))
        self.statistics.num_waiting = len(self._queue)

    def _on_turn(self) -> None:
        """Go on, since the model's turn has come. Called in any thread."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the event loop is closed, so that nobody waits for answers
            self._loop.call_soon_threadsafe(self._pump)

    def _return_turns(self) -> None:
        """Give back the turns that no batch was started in, and wait for none that no batch needs."""
        for share in self._shares:
            if share.has_turn or (share.is_waiting and not (self._queue and share.is_blocked)):
                share.withdraw()

    def _start(self, lane: Lane, pendings: Sequence[Pending], num_rows: int, now_ns: int) -> None:
        batch = Batch(pendings, num_rows, self._outputs, self._policy)
        if self._policy.preserve_ordering:
            self._started.append(batch)
            self._unfinished.add(batch)
        for pending in pendings:
            if pending.call.bill is not None:
                for unit in lane.worker.runner.units:
                    pending.call.bill.ran_on(unit, pending.call.batch_size)
        lane.start(batch, now_ns, len(self._queue))
        if lane.running is not None:
            self._run_limit.watch()

    def _running(self) -> Iterator[tuple[Lane, int]]:
        """The lanes with a batch that is not given up, and when it began."""
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
        lane.end(batch, self._lanes, has_more=bool(self._queue))
        lost = next((each for each in batch.answers if isinstance(each, UnitLostError)), None)
        if lost is not None and not lane.is_lost:
            self._lose(lane, batch, lost)
        if lane.speed is not None and batch.num_executions == 1:
            self._watch_speed(lane, lane.speed, batch)
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
        batch.answers = [self._begin_finishing(*each) for each in zip(batch.pendings, batch.answers, strict=True)]
        if not self._policy.preserve_ordering:
            self._answer(batch)
            return
        tasks = [answer for answer in batch.answers if isinstance(answer, asyncio.Task)]
        for task in tasks:
            task.add_done_callback(lambda _: self._answer_in_order(batch, tasks))
        self._answer_in_order(batch, tasks)

    def _lose(self, lane: Lane, batch: Batch, error: UnitLostError) -> None:
        """Take a lane whose hardware is gone from service. Its requests go to other units, where they may."""
        unit = lane.worker.runner.unit
        self._eligible.lose(lane, error)
        if all(each.is_lost for each in self._lanes if each.worker.runner.unit is unit):
            self.statistics.lost[unit] = str(error)
        _log.error("model '%s' leaves '%s': %s", self._name, unit.value, error)
        for pending in [each for each in self._queue if not self._eligible.lanes_of(each)]:
            self._queue.remove(pending)
            self._fail(pending, error, FailureReason.BACKEND)
        if self._policy.preserve_ordering:
            # Answers that come later than those after them would not keep the order.
            return
        kept: list[tuple[Pending, Answer]] = []
        for pending, answer in zip(batch.pendings, batch.answers, strict=True):
            if pending.future.done() or not isinstance(answer, UnitLostError) or not self._try_again(pending):
                kept.append((pending, answer))
        batch.pendings, batch.answers = [each for each, _ in kept], [answer for _, answer in kept]

    def _try_again(self, pending: Pending) -> bool:
        """Queue a request again, if another unit may compute it, and the queue takes it."""
        if self._is_closed or not self._eligible.lanes_of(pending):
            return False
        try:
            self._queue.push(pending, lambda: request_ns(self._eligible.lanes_of(pending)))
        except UnavailableError:
            return False
        return True

    def _watch_speed(self, lane: Lane, speed: SpeedWatch, batch: Batch) -> None:
        unit, statistics = lane.worker.runner.unit, self.statistics
        has_changed = speed.record(num_elements(batch.pendings), batch.infer_ns, batch.ended_ns)
        if speed.ratio:
            statistics.slowdowns[unit] = speed.ratio
        if not has_changed:
            return
        if speed.is_slowed:
            statistics.slowed.add(unit)
            _log.warning(
                "model '%s': '%s' has slowed down: batches take %.1f times their best time since the load. Heat lowers "
                "clocks, or other programs use the unit",
                self._name,
                unit.value,
                speed.ratio,
            )
        else:
            statistics.slowed.discard(unit)
            _log.info("model '%s': '%s' is as fast as before", self._name, unit.value)

    def _answer_in_order(self, batch: Batch, tasks: Sequence[asyncio.Task[InferenceResponse]]) -> None:
        """Answer a batch, with those after it, once its answers are finished and all batches before it are answered."""
        if not all(task.done() for task in tasks):
            return
        self._unfinished.discard(batch)
        while self._started and self._started[0] not in self._unfinished:
            self._answer(self._started.popleft())

    def _begin_finishing(self, pending: Pending, answer: Answer) -> Answer:
        """Start a task that finishes an answer, if that takes long."""
        finish = pending.call.finish
        if finish is None or not isinstance(answer, dict) or finish.is_quick(answer) or pending.future.done():
            return answer
        work = self._finishing.run(finish, self._response_of(pending, answer))
        task = asyncio.get_running_loop().create_task(work)
        pending.future.add_done_callback(lambda _: task.cancel())
        return task

    def _answer(self, batch: Batch) -> None:
        now_ns = self._clock.now_ns()
        for pending, answer in zip(batch.pendings, batch.answers, strict=True):
            if isinstance(answer, asyncio.Task) and not answer.done():
                answer.add_done_callback(partial(self._settle, batch, pending, now_ns))
            else:
                self._settle(batch, pending, now_ns, answer)

    def _settle(self, batch: Batch, pending: Pending, computed_ns: int, answer: Answer) -> None:
        """Answer one request of a batch that ended at `computed_ns`. Statistics leave out the time of finishing."""
        statistics = self.statistics
        if pending.future.done():
            statistics.num_pending -= 1
            reason = FailureReason.CANCELED if pending.future.cancelled() else FailureReason.BACKEND
            statistics.record_failure(reason, computed_ns - pending.arrived_ns)
            self._wake_if_idle()
            return
        if isinstance(answer, TriuneError):
            self._fail(pending, answer, FailureReason.BACKEND)
            return
        try:
            response = answer.result() if isinstance(answer, asyncio.Task) else self._finished(pending, answer)
        except TriuneError as error:
            self._fail(pending, error, FailureReason.OTHER)
            return
        except Exception as error:  # noqa: BLE001 - a defect in one answer must not fail the other requests of the batch
            _log.exception("an answer of model '%s' could not be finished", self._name)
            failure = defect_of(f"the answer of model '{self._name}' failed", error)
            self._fail(pending, failure, FailureReason.OTHER)
            return
        total_ns, queue_ns = computed_ns - pending.arrived_ns, batch.started_ns - pending.arrived_ns
        statistics.record_success(
            pending.call.batch_size, total_ns, queue_ns, batch.input_ns, batch.infer_ns, batch.output_ns
        )
        if pending.call.compute_time is not None:
            pending.call.compute_time.add(batch.input_ns, batch.infer_ns, batch.output_ns)
        if statistics.distributions is not None:
            latencies_ns = (total_ns, queue_ns, batch.input_ns, batch.infer_ns, batch.output_ns)
            statistics.distributions.record(latencies_ns, pending.call.inputs.values(), response.outputs.values())
        pending.future.set_result(response)
        statistics.last_inference_ms = time.time_ns() // 1_000_000
        self._wake_if_idle()

    def _response_of(self, pending: Pending, answer: dict[str, Array]) -> InferenceResponse:
        request = pending.call.request
        if request.outputs:
            answer = {output.name: answer[output.name] for output in request.outputs}
        return InferenceResponse(self._name, self._version, answer, request.id)

    def _finished(self, pending: Pending, answer: dict[str, Array]) -> InferenceResponse:
        """The client's response from the model's answer."""
        response = self._response_of(pending, answer)
        return pending.call.finish.convert(response) if pending.call.finish else response

    def _fail(self, pending: Pending, error: TriuneError, reason: FailureReason) -> None:
        self.statistics.num_pending -= 1
        if pending.future.done():
            reason = FailureReason.CANCELED
        else:
            pending.future.set_exception(error)
        self.statistics.record_failure(reason, self._clock.now_ns() - pending.arrived_ns)
        self._wake_if_idle()

    def _withdraw(self, pending: Pending) -> None:
        """Remove a request from the queue if the client cancelled it. Called when the future of the request is done."""
        if pending.future.cancelled() and self._queue.remove(pending):
            self.statistics.num_pending -= 1
            self.statistics.record_failure(FailureReason.CANCELED, self._clock.now_ns() - pending.arrived_ns)
            self._wake_if_idle()
            self._pump()

    def _wake_if_idle(self) -> None:
        if self._idle is not None and self.statistics.num_pending == 0:
            self._idle.set()
            self._idle = None

    def _set_timer(self, when_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when_ns:
            self._timer = self._clock.call_at(when_ns, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()
