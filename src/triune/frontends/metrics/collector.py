"""Collect metrics from the models' statistics when /metrics is requested, so that inference is not slowed down.

Names, labels and units of nv_* are Triton's (`metrics.cc`, `metric_model_reporter.cc`); durations are those of
successful requests, in microseconds. There are no metrics nv_gpu_*; metrics of energy are in `energy`. A figure that
cannot be measured is absent, not 0.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from triune.arbiter.arbiter import Arbiter
from triune.core.statistics import ModelStatistics
from triune.core.units import Presence, UnitStatus
from triune.engine.servable import TextServable
from triune.frontends.metrics.distributions import distributions
from triune.frontends.metrics.energy import energy
from triune.frontends.metrics.generation import generation
from triune.frontends.metrics.machine import MachineMeter
from triune.frontends.metrics.memory import memory
from triune.frontends.metrics.options import MetricsOptions
from triune.frontends.metrics.turns import turns
from triune.hardware.energy.ledger import EnergyLedger
from triune.repository.memory.keeper import MemoryKeeper
from triune.scheduling.models import LoadedVersion
from triune.serving.server import Server

_COUNTERS: Sequence[tuple[str, str, Callable[[ModelStatistics], int]]] = (
    (
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
        lambda counted: counted.success.count,
    ),
    (
        "nv_inference_count",
        "Number of inferences performed (a request of batch size n counts n)",
        lambda counted: counted.num_inferences,
    ),
    (
        "nv_inference_exec_count",
        "Number of model executions performed (a batch counts 1)",
        lambda counted: counted.num_executions,
    ),
)

_LATENCIES: Sequence[tuple[str, str, Callable[[ModelStatistics], int]]] = (
    (
        "nv_inference_request_duration_us",
        "Cumulative inference request duration in microseconds",
        lambda counted: counted.success.total_ns // 1000,
    ),
    (
        "nv_inference_queue_duration_us",
        "Cumulative inference queuing duration in microseconds",
        lambda counted: counted.queue.total_ns // 1000,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Cumulative compute input duration in microseconds",
        lambda counted: counted.compute_input.total_ns // 1000,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Cumulative compute inference duration in microseconds",
        lambda counted: counted.compute_infer.total_ns // 1000,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Cumulative compute output duration in microseconds",
        lambda counted: counted.compute_output.total_ns // 1000,
    ),
)

_CACHE: Sequence[tuple[str, str, Callable[[ModelStatistics], int]]] = (
    ("nv_cache_num_hits_per_model", "Number of cache hits per model", lambda counted: counted.cache_hit.count),
    ("nv_cache_num_misses_per_model", "Number of cache misses per model", lambda counted: counted.cache_miss.count),
    (
        "nv_cache_hit_duration_per_model",
        "Total cache hit duration per model, in microseconds",
        lambda counted: counted.cache_hit.total_ns // 1000,
    ),
    (
        "nv_cache_miss_duration_per_model",
        "Total cache miss duration per model, in microseconds",
        lambda counted: counted.cache_miss.total_ns // 1000,
    ),
)

_NOT_IN_LABEL = re.compile(r"[^a-zA-Z0-9_]")


class MetricsCollector(Collector):
    """Collects every metric of a server. Not thread-safe: call it on the event loop's thread."""

    def __init__(
        self,
        server: Server,
        units: Sequence[UnitStatus],
        options: MetricsOptions | None = None,
        ledger: EnergyLedger | None = None,
        arbiter: Arbiter | None = None,
        keeper: MemoryKeeper | None = None,
    ) -> None:
        """Args:
        server: the server with the models.
        units: the machine's compute units.
        options: which metrics are exported.
        ledger: the joules of the models and of the machine's rails; None if energy is not metered.
        arbiter: decides which models compute at once on shared hardware; None leaves its metrics out.
        keeper: keeps the models within the memory budget; None leaves its metrics out.
        """
        self._memory = keeper
        self._arbiter = arbiter
        self._ledger = ledger
        self._server = server
        self._units = units
        self._options = options or MetricsOptions()
        self._machine_meter = MachineMeter(self._options.interval_seconds)

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families with all their samples. Families without samples are left out."""
        models = [(_labels(model), model.statistics) for model in self._server.statistics()]
        text_models = [
            (_labels(model), model.servable.model)
            for model in self._server.statistics()
            if isinstance(model.servable, TextServable)
        ]
        machine = self._machine() if self._options.has_cpu else ()
        families = [
            *self._inference(models),
            *distributions(models, self._options),
            *generation(text_models),
            *machine,
            *self._by_unit(models),
            *energy(models, self._ledger.rails if self._ledger is not None else ()),
            *(turns(self._arbiter.pools) if self._arbiter is not None else ()),
            *(memory(self._memory) if self._memory is not None else ()),
            self._presence(),
        ]
        return [family for family in families if family.samples]

    def _inference(self, models: Sequence[tuple[dict[str, str], ModelStatistics]]) -> Iterable[Metric]:
        with_cache = [(labels, counted) for labels, counted in models if counted.has_cache]
        latencies = _LATENCIES if self._options.has_counters else ()
        for counters, told in ((_COUNTERS, models), (latencies, models), (_CACHE, with_cache)):
            for name, documentation, read in counters:
                family = Metric(name, documentation, "counter")
                for labels, counted in told:
                    family.add_sample(name, labels, read(counted))
                yield family
        failures = Metric(
            "nv_inference_request_failure", "Number of failed inference requests, all batch sizes", "counter"
        )
        pending = Metric(
            "nv_inference_pending_request_count",
            "Instantaneous number of pending requests awaiting execution per-model",
            "gauge",
        )
        for labels, counted in models:
            pending.add_sample(pending.name, labels, counted.num_waiting)
            for reason, count in counted.failures.items():
                failures.add_sample(failures.name, {**labels, "reason": reason.value}, count)
        yield failures
        yield pending

    def _machine(self) -> Iterable[Metric]:
        utilization = Metric("nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]", "gauge")
        reading = self._machine_meter.read()
        if reading.utilization is not None:
            utilization.add_sample(utilization.name, {}, reading.utilization)
        yield utilization
        for name, documentation, value in (
            ("nv_cpu_memory_total_bytes", "CPU total memory (RAM), in bytes", reading.total_bytes),
            ("nv_cpu_memory_used_bytes", "CPU used memory (RAM), in bytes", reading.used_bytes),
        ):
            family = Metric(name, documentation, "gauge")
            family.add_sample(name, {}, value)
            yield family

    def _by_unit(self, models: Sequence[tuple[dict[str, str], ModelStatistics]]) -> Iterable[Metric]:
        count = Metric("triune_unit_inference_count", "Inferences performed by each unit", "counter")
        busy = Metric("triune_unit_busy_seconds", "Seconds that each unit computed", "counter")
        error = Metric(
            "triune_unit_error_max", "Largest difference from the cpu unit's answer, measured at load", "gauge"
        )
        refused = Metric(
            "triune_unit_refused", "1 if the unit does not serve the model since its answers are wrong, else 0", "gauge"
        )
        slowdown = Metric(
            "triune_unit_slowdown_ratio", "Time of recent batches, as a multiple of the best since the load", "gauge"
        )
        slowed = Metric("triune_unit_slowed", "1 if the unit has slowed down for this model, else 0", "gauge")
        for labels, counted in models:
            for unit, ratio in counted.slowdowns.items():
                slowdown.add_sample(slowdown.name, {**labels, "unit": unit.value}, ratio)
                slowed.add_sample(slowed.name, {**labels, "unit": unit.value}, int(unit in counted.slowed))
            for unit, rows in counted.unit_inferences.items():
                count.add_sample(count.name, {**labels, "unit": unit.value}, rows)
            for unit, busy_ns in counted.unit_busy_ns.items():
                busy.add_sample(busy.name, {**labels, "unit": unit.value}, busy_ns / 1e9)
            for unit, verdict in counted.verdicts.items():
                error.add_sample(error.name, {**labels, "unit": unit.value}, verdict.largest)
                refused.add_sample(refused.name, {**labels, "unit": unit.value}, int(bool(verdict.excess)))
        return count, busy, error, refused, slowdown, slowed

    def _presence(self) -> Metric:
        family = Metric("triune_unit_present", "1 if the machine has the unit; 0 if it is emulated or absent", "gauge")
        for status in self._units:
            labels = {"unit": status.unit.value, "presence": status.presence.value}
            family.add_sample(family.name, labels, int(status.presence is Presence.PRESENT))
        return family


def _labels(model: LoadedVersion) -> dict[str, str]:
    """Triton's labels: the model, its version, and the config's metric tags, with an underscore before each tag's
    name.
    """
    labels = {"model": model.config.name, "version": str(model.version)}
    for tag, value in model.config.metric_tags.items():
        name = "_" + _NOT_IN_LABEL.sub("_", tag)
        # Join the values of tags with the same label: tags may differ only in characters that `_` has replaced.
        labels[name] = f"{labels[name]},{value}" if name in labels else value
    return labels
