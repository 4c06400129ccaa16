"""Runs requests at once, without a queue and batches, if the only worker runs the model on the event loop's thread."""

import time
from functools import partial

from triune.arbiter.share import Share
from triune.core.clock import Clock
from triune.core.energy import Account
from triune.core.requests import InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.scheduling.call_times import CallTimes
from triune.scheduling.worker import InlineWorker, QuickWorker

_RECORDED = 16
"""One run in this many is recorded by its shapes: there may be thousands in a second."""


class DirectRuns:
    """Runs single requests of a small model, for which a queue and a batch would take as long as the model itself."""

    def __init__(
        self,
        name: str,
        version: int,
        outputs: tuple[str, ...],
        worker: InlineWorker | QuickWorker,
        statistics: ModelStatistics,
        clock: Clock,
        account: Account | None,
        times: CallTimes | None = None,
        share: Share | None = None,
    ) -> None:
        """Args:
        name: the model's name.
        version: its version.
        outputs: its outputs in order, for requests that name none.
        worker: its only worker.
        statistics: its counters.
        clock: the clock.
        account: the account that is charged with the energy of the runs; None if energy is not metered.
        times: where the times of some runs are recorded by shape; None records none.
        share: the model's share of the hardware, by which it is known whether others compute; None if none do.
        """
        self._name = name
        self._version = version
        self._outputs = outputs
        self._worker = worker
        self._executable = worker.runner.executable
        self._statistics = statistics
        self._clock = clock
        self._account = account
        self._times = times
        self._share = share

    def answer(self, call: Call, arrived_ns: int) -> InferenceResponse | None:
        """Run one request now.

        Args:
            call: the request.
            arrived_ns: when it arrived, on the clock.

        Returns:
            the answer. None if the worker has left the event loop's thread, if an error occurred, or if finishing the
            answer takes long. The request then goes through the queue, which reports and counts errors, and finishes
            answers in a thread.
        """
        worker = self._worker
        if not worker.is_inline:
            return None
        executable, request = self._executable, call.request
        names = [output.name for output in request.outputs] if request.outputs else self._outputs
        try:
            outputs = executable.run(call.inputs, names)
            ended_ns = self._clock.now_ns()
            response = InferenceResponse(self._name, self._version, outputs, request.id)
            if call.finish is not None:
                if not call.finish.is_quick(outputs):
                    return None
                response = call.finish.convert(response)
        except Exception:  # noqa: BLE001 - the usual way runs the small model again, and reports the error
            elapsed_ns = self._clock.now_ns() - arrived_ns
            if worker.charge(elapsed_ns):
                worker.leave(elapsed_ns, partial(executable.run, call.inputs, names))
            return None
        elapsed_ns = ended_ns - arrived_ns
        if worker.charge(elapsed_ns):
            worker.leave(elapsed_ns, partial(executable.run, call.inputs, names))
        if call.bill is not None:
            call.bill.ran_on(executable.unit, call.batch_size)
        if (account := self._account) is not None:
            if call.bill is None:
                account.quick_ns += elapsed_ns
            else:
                account.ran(arrived_ns, ended_ns, call.bill)
        statistics = self._statistics
        statistics.record_alone(executable.unit, call.batch_size, elapsed_ns)
        if statistics.num_executions % _RECORDED == 0 and self._times is not None and self._is_alone():
            self._times.record_call(executable.unit, call.inputs, elapsed_ns, ended_ns)
        if statistics.distributions is not None:
            latencies_ns = (elapsed_ns, 0, 0, elapsed_ns, 0)
            statistics.distributions.record(latencies_ns, call.inputs.values(), response.outputs.values())
        if call.compute_time is not None:
            call.compute_time.add(0, elapsed_ns, 0)
        statistics.last_inference_ms = time.time_ns() // 1_000_000
        return response

    def _is_alone(self) -> bool:
        """Whether nothing else computes on the hardware, as far as known."""
        return self._share is None or self._share.is_pool_idle
