"""The statistics of an ensemble's requests."""

import time

from triune.core.clock import Clock
from triune.core.requests import InferenceResponse
from triune.core.statistics import FailureReason, ModelStatistics
from triune.scheduling.steps.run import Run


class Counting:
    """Counts the requests of an ensemble, on the event loop's thread. Each request that has begun is ended exactly
    once.
    """

    def __init__(self, statistics: ModelStatistics, clock: Clock) -> None:
        """Args:
        statistics: the counters of the ensemble, which this object adds to.
        clock: the clock that gave `Run.started_ns`.
        """
        self._statistics = statistics
        self._clock = clock

    def reject(self) -> None:
        """Count a request that is refused before it begins."""
        self._statistics.record_failure(FailureReason.REJECTED, 0)

    def begin(self) -> None:
        """Count a request that begins."""
        self._statistics.num_pending += 1

    def fail(self, run: Run, reason: FailureReason) -> None:
        """Count a request that ends without an answer."""
        self._statistics.num_pending -= 1
        self._statistics.record_failure(reason, self._clock.now_ns() - run.started_ns)

    def succeed(self, run: Run, response: InferenceResponse) -> None:
        """Count an answered request, with the times that its steps took together."""
        statistics, computed = self._statistics, run.compute_time
        total_ns = self._clock.now_ns() - run.started_ns
        rows = run.call.batch_size
        statistics.record_success(rows, total_ns, 0, computed.input_ns, computed.infer_ns, computed.output_ns)
        statistics.record_batch(rows, 1, computed.input_ns, computed.infer_ns, computed.output_ns)
        if statistics.distributions is not None:
            latencies_ns = (total_ns, 0, computed.input_ns, computed.infer_ns, computed.output_ns)
            statistics.distributions.record(latencies_ns, run.call.inputs.values(), response.outputs.values())
        if run.call.compute_time is not None:
            run.call.compute_time.add(computed.input_ns, computed.infer_ns, computed.output_ns)
        statistics.last_inference_ms = time.time_ns() // 1_000_000
