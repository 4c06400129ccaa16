"""The counters of one version of a model, named as in Triton. They are changed on the event loop's thread only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from triune.core.distributions import Distributions
from triune.core.energy import Account
from triune.core.units import Unit
from triune.core.verdict import Verdict


@dataclass(slots=True)
class Duration:
    """How often an event happened, and its total duration."""

    count: int = 0
    total_ns: int = 0

    def add(self, duration_ns: int, count: int = 1) -> None:
        """Count `count` events that took `duration_ns` altogether."""
        self.count += count
        self.total_ns += duration_ns


class FailureReason(Enum):
    """Why a request failed; the label `reason` of nv_inference_request_failure."""

    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    BACKEND = "BACKEND"
    OTHER = "OTHER"


@dataclass(slots=True)
class BatchStatistics:
    """The durations of the executions of one batch size. The `count` of each is the number of executions."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class ModelStatistics:
    """Totals since the version was loaded. The times of a batch count once for each of its requests.

    Attributes:
        num_inferences: rows computed (a request of batch size 4 counts 4).
        num_executions: batches computed.
        last_inference_ms: the time of the last answer, in milliseconds since 1970; 0 if there was none.
        num_pending: requests accepted and not yet answered.
        num_waiting: pending requests that wait in the queue.
        failures: the number of failed requests for each reason.
        batches: the executions of each batch size, in rows.
        segments: the runs of each segment of a model that is divided into segments, by the segment's number.
        unit_inferences: rows computed by each unit.
        unit_busy_ns: compute time of each unit.
        distributions: histograms of latencies and sizes; None if they are turned off.
        has_cache: whether the model has a response cache.
        cache_hit: requests that the cache answered, and the time of the look-up.
        cache_miss: requests that the cache could not answer, and the time of look-up and insertion.
        accounts: the energy on each unit; empty if energy is not metered.
        slowdowns: the mean time of recent batches as a multiple of the best mean since the load, by unit, where it is
            known.
        slowed: the units that have slowed down so much that a warning was logged.
        lost: the units whose hardware is gone, so that the model is not served there any more, each with the reason.
        verdicts: how far each unit's answers differ from those of `cpu` on sample input. This includes units that do
            not serve the model because of the difference.
    """

    num_inferences: int = 0
    num_executions: int = 0
    last_inference_ms: int = 0
    num_pending: int = 0
    num_waiting: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    failures: dict[FailureReason, int] = field(default_factory=lambda: dict.fromkeys(FailureReason, 0))
    batches: dict[int, BatchStatistics] = field(default_factory=dict[int, BatchStatistics])
    segments: dict[int, Duration] = field(default_factory=dict[int, Duration])
    unit_inferences: dict[Unit, int] = field(default_factory=dict[Unit, int])
    unit_busy_ns: dict[Unit, int] = field(default_factory=dict[Unit, int])
    verdicts: dict[Unit, Verdict] = field(default_factory=dict[Unit, Verdict])
    slowdowns: dict[Unit, float] = field(default_factory=dict[Unit, float])
    slowed: set[Unit] = field(default_factory=set[Unit])
    lost: dict[Unit, str] = field(default_factory=dict[Unit, str])
    accounts: Mapping[Unit, Account] = field(default_factory=dict[Unit, Account])
    distributions: Distributions | None = None
    has_cache: bool = False
    cache_hit: Duration = field(default_factory=Duration)
    cache_miss: Duration = field(default_factory=Duration)

    def record_cache_hit(self, elapsed_ns: int) -> None:
        """Count a cache hit: a request that succeeded without a computation."""
        self.success.add(elapsed_ns)
        self.queue.add(0)
        self.cache_hit.add(elapsed_ns)

    def record_failure(self, reason: FailureReason, elapsed_ns: int) -> None:
        """Count a request that failed after `elapsed_ns`."""
        self.fail.add(elapsed_ns)
        self.failures[reason] += 1

    def record_success(
        self, num_rows: int, total_ns: int, queue_ns: int, input_ns: int, infer_ns: int, output_ns: int
    ) -> None:
        """Count an answered request. The code of `Duration.add` is repeated here for speed, since every request
        runs it.
        """
        self.num_pending -= 1
        self.num_inferences += num_rows
        for duration, elapsed_ns in (
            (self.success, total_ns),
            (self.queue, queue_ns),
            (self.compute_input, input_ns),
            (self.compute_infer, infer_ns),
            (self.compute_output, output_ns),
        ):
            duration.count += 1
            duration.total_ns += elapsed_ns

    def record_alone(self, unit: Unit, num_rows: int, elapsed_ns: int) -> None:
        """Count a request that ran immediately, as a batch with one request: `record_success` and `record_execution` in
        one call.
        """
        self.num_inferences += num_rows
        self.num_executions += 1
        self.success.count += 1
        self.success.total_ns += elapsed_ns
        self.queue.count += 1
        self.compute_input.count += 1
        self.compute_infer.count += 1
        self.compute_infer.total_ns += elapsed_ns
        self.compute_output.count += 1
        self.unit_inferences[unit] = self.unit_inferences.get(unit, 0) + num_rows
        self.unit_busy_ns[unit] = self.unit_busy_ns.get(unit, 0) + elapsed_ns
        batch = self.batches.get(num_rows)
        if batch is None:
            batch = self.batches[num_rows] = BatchStatistics()
        batch.compute_input.count += 1
        batch.compute_infer.count += 1
        batch.compute_infer.total_ns += elapsed_ns
        batch.compute_output.count += 1

    def record_execution(
        self,
        unit: Unit,
        num_rows: int,
        num_executions: int,
        input_ns: int,
        infer_ns: int,
        output_ns: int,
        parts: Sequence[tuple[int, Unit, int]] = (),
    ) -> None:
        """Count a batch of `num_rows` that `unit` computed in `num_executions` runs of the model.

        Args:
            unit: the unit.
            num_rows: the rows of the batch.
            num_executions: the runs of the model.
            input_ns: the time to join inputs.
            infer_ns: the time to run.
            output_ns: the time to split outputs.
            parts: for a model that is divided into segments, the segment's number, the unit and the time in ns of each
                run. These units count instead of `unit`, each once.
        """
        if not parts:
            self.unit_inferences[unit] = self.unit_inferences.get(unit, 0) + num_rows
            self.unit_busy_ns[unit] = self.unit_busy_ns.get(unit, 0) + input_ns + infer_ns + output_ns
        for segment, each, elapsed_ns in parts:
            self.segments.setdefault(segment, Duration()).add(elapsed_ns)
            self.unit_busy_ns[each] = self.unit_busy_ns.get(each, 0) + elapsed_ns
        for each in {part[1] for part in parts}:
            self.unit_inferences[each] = self.unit_inferences.get(each, 0) + num_rows
        self.record_batch(num_rows, num_executions, input_ns, infer_ns, output_ns)

    def record_batch(self, num_rows: int, num_executions: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Count a batch of `num_rows` without a unit. This is for ensembles, since the models of their steps count the
        units.
        """
        self.num_executions += num_executions
        batch = self.batches.get(num_rows)
        if batch is None:
            batch = self.batches[num_rows] = BatchStatistics()
        batch.compute_input.add(input_ns)
        batch.compute_infer.add(infer_ns)
        batch.compute_output.add(output_ns)
