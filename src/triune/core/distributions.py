"""Histograms and quantiles of a model version's latencies and sizes. They can be turned off, since they cost time."""

import bisect
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from triune.core.datatypes import Array
from triune.core.sizes import content_bytes

LATENCIES = ("request", "queue", "compute_input", "compute_infer", "compute_output")
"""The latencies of an answered request that are kept, in this order."""

FIRST_RESPONSE_BUCKETS_MS = (100.0, 500.0, 2000.0, 5000.0)
"""Triton's buckets, used if a model's `model_metrics` names no others."""

TENSOR_BUCKETS_BYTES = tuple(float(4**power) for power in range(3, 16))
"""The upper bounds of the buckets for the sizes of inputs and outputs: powers of 4 from 64 bytes to 1 GiB."""

WINDOW_SECONDS = 60.0
"""Quantiles are computed over the last minute, as in the Prometheus client that Triton uses."""

_MAX_SAMPLES = 8192


@dataclass(slots=True)
class Histogram:
    """Counts of values, by upper bound.

    Attributes:
        bounds: the upper bounds, ascending.
        counts: one count for each bound, and one for larger values; not cumulative.
        total: the sum of the values.
    """

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list[int])
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float, count: int = 1) -> None:
        """Count a value `count` times."""
        self.counts[bisect.bisect_left(self.bounds, value)] += count
        self.total += value * count


@dataclass(slots=True)
class Distributions:
    """The distributions of one model version.

    Attributes:
        samples: a tuple for each of the last 8192 answers: the time of the answer (seconds of the monotonic clock),
            then its total time, and its times in the queue, for input, inference and output, in nanoseconds.
        first_response_ms: the time from a request's arrival to its first response.
        input_bytes, output_bytes: the total size of a request's input and output tensors. BYTES elements count without
            their length prefixes.
    """

    first_response_ms: Histogram
    samples: deque[tuple[float, int, int, int, int, int]] = field(default_factory=lambda: deque(maxlen=_MAX_SAMPLES))
    input_bytes: Histogram = field(default_factory=lambda: Histogram(TENSOR_BUCKETS_BYTES))
    output_bytes: Histogram = field(default_factory=lambda: Histogram(TENSOR_BUCKETS_BYTES))

    def record(
        self,
        latencies_ns: tuple[int, int, int, int, int],
        inputs: Collection[Array],
        outputs: Collection[Array],
        *,
        first_response_ns: int | None = None,
    ) -> None:
        """Count an answered request.

        Args:
            latencies_ns: its total time, and its times in the queue, for input, inference and output, in nanoseconds.
            inputs: its input tensors.
            outputs: the output tensors of the answer.
            first_response_ns: the time to the first of several responses; None if there was only one response.
        """
        self.samples.append((time.monotonic(), *latencies_ns))
        self.first_response_ms.add((latencies_ns[0] if first_response_ns is None else first_response_ns) / 1e6)
        self.input_bytes.add(_num_bytes(inputs))
        self.output_bytes.add(_num_bytes(outputs))

    def quantiles_us(self, index: int, quantiles: Sequence[float]) -> list[float]:
        """Quantiles of one latency over the last minute, in microseconds; NaN if no request was answered.

        Args:
            index: the index of the latency in LATENCIES; 0 is the total time.
            quantiles: the quantiles, from 0 to 1.
        """
        since = time.monotonic() - WINDOW_SECONDS
        values = [sample[index + 1] / 1000 for sample in self.samples if sample[0] >= since]
        if not values:
            return [float("nan")] * len(quantiles)
        return [float(each) for each in np.quantile(values, quantiles, method="inverted_cdf")]


def _num_bytes(arrays: Collection[Array]) -> int:
    return sum(content_bytes(array) if array.dtype.hasobject else array.nbytes for array in arrays)
