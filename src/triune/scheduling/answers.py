"""Answers a model's requests: makes responses, keeps their order if the config says so, and counts them.

A response is finished when the model's outputs have been converted to the form that the client asked for
(`core.servable.Finisher`).
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from triune.core.clock import Clock
from triune.core.datatypes import Array
from triune.core.errors import TriuneError, defect_of
from triune.core.finishing import Finishing
from triune.core.requests import InferenceResponse
from triune.core.statistics import FailureReason, ModelStatistics
from triune.core.threads import in_thread_to_its_end
from triune.scheduling.batch import Answer, Batch
from triune.scheduling.division import Division
from triune.scheduling.queue import Pending

_QUICK_BYTES = 1 << 16
"""Outputs of a divided request that have more bytes than this are joined in a thread."""

_log = logging.getLogger(__name__)


class _Times(Protocol):
    """The times of a request, in ns: when it began, and how long its stages took. `Batch` and `Division` have them."""

    @property
    def started_ns(self) -> int: ...
    @property
    def input_ns(self) -> int: ...
    @property
    def infer_ns(self) -> int: ...
    @property
    def output_ns(self) -> int: ...


class Answers:
    """Resolves the futures of a model's requests, and counts the requests as they are answered.

    Everything here runs on the event loop's thread, except that large responses are finished in another thread.
    """

    def __init__(
        self, name: str, version: int, statistics: ModelStatistics, clock: Clock, *, preserve_ordering: bool
    ) -> None:
        """Args:
        name: the model's name.
        version: its version.
        statistics: the model's counters. `num_pending` goes down by 1 with each request that is answered.
        clock: the clock.
        preserve_ordering: whether batches are answered in the order in which they started.
        """
        self._name = name
        self._version = version
        self._statistics = statistics
        self._clock = clock
        self._preserve_ordering = preserve_ordering
        self._started: deque[Batch] = deque()
        self._unfinished: set[Batch] = set()
        self._finishing = Finishing()
        self._idle: asyncio.Event | None = None

    def begin(self, batch: Batch) -> None:
        """Note that a batch starts, for the order of answers."""
        if self._preserve_ordering:
            self._started.append(batch)
            self._unfinished.add(batch)

    def give(self, batch: Batch) -> None:
        """Answer the requests of a batch that has ended, each as soon as its response is finished."""
        batch.answers = [self._begin_finishing(*each) for each in zip(batch.pendings, batch.answers, strict=True)]
        if not self._preserve_ordering:
            self._answer(batch)
            return
        tasks = [answer for answer in batch.answers if isinstance(answer, asyncio.Task)]
        for task in tasks:
            task.add_done_callback(lambda _: self._answer_in_order(batch, tasks))
        self._answer_in_order(batch, tasks)

    def fail(self, pending: Pending, error: TriuneError, reason: FailureReason) -> None:
        """Answer a request with an error; if its client has cancelled it, count it as cancelled."""
        if pending.future.done():
            reason = FailureReason.CANCELED
        else:
            pending.future.set_exception(error)
        self._count_failure(pending, reason, self._clock.now_ns())

    def cancel(self, pending: Pending) -> None:
        """Count a waiting request that its client has cancelled."""
        self._count_failure(pending, FailureReason.CANCELED, self._clock.now_ns())

    async def wait_for_all(self) -> None:
        """Wait until no request is pending."""
        while self._statistics.num_pending:
            idle = self._idle = self._idle or asyncio.Event()
            await idle.wait()

    def _answer_in_order(self, batch: Batch, tasks: Sequence[asyncio.Task[InferenceResponse]]) -> None:
        """Called when a task of a batch is done. Once all `tasks` are done, the batch is finished: answer the
        finished batches in the order in which they started, up to the first batch that is not finished.
        """
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
            elif pending.division is not None:
                self._settle_part(batch, pending.division, pending, now_ns, answer)
            else:
                self._settle(batch, pending, now_ns, answer)

    def _settle_part(self, batch: Batch, division: Division, part: Pending, computed_ns: int, answer: Answer) -> None:
        """Note the end of a part of a divided request, and answer the request if it was the last part."""
        if part.future.done() or not isinstance(answer, dict):
            self._settle(batch, part, computed_ns, answer)
            return
        if not division.add(part, answer, batch):
            return
        whole = division.whole
        finish = whole.call.finish
        if division.num_bytes <= _QUICK_BYTES and (finish is None or not finish.classified):
            self._settle(division, whole, computed_ns, division.joined())
            return
        task = asyncio.get_running_loop().create_task(self._join(division))
        whole.future.add_done_callback(lambda _: task.cancel())
        task.add_done_callback(partial(self._settle, division, whole, computed_ns))

    async def _join(self, division: Division) -> InferenceResponse:
        """Make the client's response of a divided request, in threads."""
        answer = await in_thread_to_its_end(division.joined)
        response, finish = self._response_of(division.whole, answer), division.whole.call.finish
        return response if finish is None else await self._finishing.run(finish, response)

    def _settle(self, times: _Times, pending: Pending, computed_ns: int, answer: Answer) -> None:
        """Answer one request whose computation ended at `computed_ns`. The statistics leave out the time to convert the
        outputs to the client's response.
        """
        statistics = self._statistics
        if pending.future.done():
            reason = FailureReason.CANCELED if pending.future.cancelled() else FailureReason.BACKEND
            self._count_failure(pending, reason, computed_ns)
            return
        if isinstance(answer, TriuneError):
            self.fail(pending, answer, FailureReason.BACKEND)
            return
        try:
            response = answer.result() if isinstance(answer, asyncio.Task) else self._finished(pending, answer)
        except TriuneError as error:
            self.fail(pending, error, FailureReason.OTHER)
            return
        except Exception as error:  # noqa: BLE001 - a defect in one answer must not fail the other requests of the batch
            _log.exception("an answer of model '%s' could not be finished", self._name)
            failure = defect_of(f"the answer of model '{self._name}' failed", error)
            self.fail(pending, failure, FailureReason.OTHER)
            return
        total_ns, queue_ns = computed_ns - pending.arrived_ns, times.started_ns - pending.arrived_ns
        statistics.record_success(
            pending.call.batch_size, total_ns, queue_ns, times.input_ns, times.infer_ns, times.output_ns
        )
        if pending.call.compute_time is not None:
            pending.call.compute_time.add(times.input_ns, times.infer_ns, times.output_ns)
        if statistics.distributions is not None:
            latencies_ns = (total_ns, queue_ns, times.input_ns, times.infer_ns, times.output_ns)
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
        """Make the client's response from the model's answer."""
        response = self._response_of(pending, answer)
        return pending.call.finish.convert(response) if pending.call.finish else response

    def _count_failure(self, pending: Pending, reason: FailureReason, now_ns: int) -> None:
        division = pending.division
        if division is not None:
            division.num_open -= 1
            reason = division.reason = division.reason or reason
            if division.num_open:
                # The request counts as pending until no part of it runs any more.
                return
        self._statistics.num_pending -= 1
        self._statistics.record_failure(reason, now_ns - pending.arrived_ns)
        self._wake_if_idle()

    def _wake_if_idle(self) -> None:
        if self._idle is not None and self._statistics.num_pending == 0:
            self._idle.set()
            self._idle = None
