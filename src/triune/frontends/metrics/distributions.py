"""Summaries and histograms: Triton's latencies under Triton's names, and the sizes of batches and tensors."""

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.metrics_core import Metric

from triune.config.metrics import FIRST_RESPONSE_FAMILY
from triune.core.distributions import LATENCIES, Distributions, Histogram
from triune.core.statistics import Duration, ModelStatistics
from triune.frontends.metrics.options import MetricsOptions
from triune.frontends.metrics.text import number

_WORDS = {"request": "inference request", "queue": "inference queuing"}

Labelled = Sequence[tuple[dict[str, str], ModelStatistics]]


def distributions(models: Labelled, options: MetricsOptions) -> Iterable[Metric]:
    """The metric families that `options` select, and the histogram of batch sizes, which is always exported."""
    yield _batch_sizes(models)
    kept = [(labels, counted, counted.distributions) for labels, counted in models if counted.distributions is not None]
    if options.has_summaries:
        for index, name in enumerate(LATENCIES):
            yield _summary(name, index, kept, [quantile for quantile, _ in options.quantiles])
    if options.has_histograms:
        family = Metric(FIRST_RESPONSE_FAMILY, "Duration from request to first response in milliseconds", "histogram")
        for labels, _, each in kept:
            add_histogram(family, labels, each.first_response_ms)
        yield family
    if options.has_sizes:
        inputs = Metric("triune_request_input_bytes", "Bytes of a request's inputs", "histogram")
        outputs = Metric("triune_request_output_bytes", "Bytes of an answer's outputs", "histogram")
        for labels, _, each in kept:
            add_histogram(inputs, labels, each.input_bytes)
            add_histogram(outputs, labels, each.output_bytes)
        yield from (inputs, outputs)


def _batch_sizes(models: Labelled) -> Metric:
    family = Metric("triune_batch_size", "Rows of the batches that were executed", "histogram")
    for labels, counted in models:
        counts = {size: batch.compute_infer.count for size, batch in sorted(counted.batches.items())}
        histogram = Histogram([float(2**power) for power in range(max(counts, default=1).bit_length() + 1)])
        for size, count in counts.items():
            histogram.add(size, count)
        add_histogram(family, labels, histogram)
    return family


def add_histogram(family: Metric, labels: Mapping[str, str], histogram: Histogram) -> None:
    """Add the samples of a histogram to a metric family."""
    count = 0
    for bound, each in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        count += each
        family.add_sample(f"{family.name}_bucket", {**labels, "le": _bound(bound)}, count)
    family.add_sample(f"{family.name}_count", dict(labels), count)
    family.add_sample(f"{family.name}_sum", dict(labels), histogram.total)


def _bound(bound: float) -> str:
    """Format a bucket's bound as Triton does: integers without a decimal point."""
    return str(int(bound)) if bound.is_integer() else number(bound)


def _summary(
    name: str,
    index: int,
    models: Sequence[tuple[dict[str, str], ModelStatistics, Distributions]],
    quantiles: Sequence[float],
) -> Metric:
    words = _WORDS.get(name, name.replace("_", " "))
    family = Metric(f"nv_inference_{name}_summary_us", f"Summary of {words} duration in microseconds", "summary")
    for labels, counted, each in models:
        total: Duration = getattr(counted, "success" if name == "request" else name)
        family.add_sample(f"{family.name}_count", labels, total.count)
        family.add_sample(f"{family.name}_sum", labels, total.total_ns // 1000)
        for quantile, value in zip(quantiles, each.quantiles_us(index, quantiles), strict=True):
            family.add_sample(family.name, {**labels, "quantile": number(quantile)}, value)
    return family
