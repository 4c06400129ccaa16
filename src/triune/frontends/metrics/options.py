"""Options of the exported metrics: Triton's --metrics-config and related flags."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from triune.core.errors import InvalidArgumentError

_SWITCHES = {
    "counter_latencies": "has_counters",
    "summary_latencies": "has_summaries",
    "histogram_latencies": "has_histograms",
    "histogram_sizes": "has_sizes",
}


@dataclass(frozen=True, slots=True)
class MetricsOptions:
    """Which metrics are exported.

    Attributes:
        has_cpu: whether nv_cpu_* are exported.
        has_counters: whether latencies are exported as counters, nv_inference_*_duration_us.
        has_summaries: whether latencies are exported as summaries, nv_inference_*_summary_us.
        has_histograms: whether nv_inference_first_response_histogram_ms is exported.
        has_sizes: whether triune_request_{input,output}_bytes, the sizes of inputs and outputs, are exported.
        quantiles: the quantiles of the summaries, each with its allowed error.
        interval_seconds: the shortest time between two measurements of nv_cpu_*.
    """

    has_cpu: bool = True
    has_counters: bool = True
    has_summaries: bool = False
    has_histograms: bool = False
    has_sizes: bool = False
    quantiles: tuple[tuple[float, float], ...] = (
        (0.5, 0.05),
        (0.9, 0.01),
        (0.95, 0.001),
        (0.99, 0.001),
        (0.999, 0.001),
    )
    interval_seconds: float = 2.0

    @property
    def has_distributions(self) -> bool:
        """Whether models must record the distributions of their latencies and sizes."""
        return self.has_summaries or self.has_histograms or self.has_sizes

    @classmethod
    def parse(cls, settings: Sequence[str], *, has_cpu: bool, interval_seconds: float) -> "MetricsOptions":
        """Parse values of Triton's `--metrics-config`, each of the form SETTING=VALUE.

        Raises:
            InvalidArgumentError: a setting is unknown, or its value is invalid.
        """
        switches: dict[str, bool] = {}
        quantiles = cls().quantiles
        for each in settings:
            name, _, value = each.partition("=")
            if not name or not value:
                raise InvalidArgumentError(f"--metrics-config option format is <setting>=<value>. Got {each}")
            if name == "summary_quantiles":
                quantiles = _parse_quantiles(value)
            elif name in _SWITCHES and value.lower() in ("true", "false"):
                switches[_SWITCHES[name]] = value.lower() == "true"
            elif name in _SWITCHES:
                raise InvalidArgumentError(f"--metrics-config={each}: {name} takes true or false")
            else:
                known = ", ".join([*_SWITCHES, "summary_quantiles"])
                raise InvalidArgumentError(f"--metrics-config={each}: there is no such setting; there are {known}")
        return cls(has_cpu=has_cpu, quantiles=quantiles, interval_seconds=interval_seconds, **switches)


def _parse_quantiles(text: str) -> tuple[tuple[float, float], ...]:
    """Parse quantiles with their allowed errors: `0.5:0.05,0.9:0.01`."""
    quantiles: list[tuple[float, float]] = []
    for pair in text.split(","):
        try:
            quantile, error = (float(each) for each in pair.split(":"))
        except ValueError:
            quantile, error = math.nan, math.nan
        if not (0 < quantile < 1 and 0 <= error < 1):
            raise InvalidArgumentError(
                f"--metrics-config=summary_quantiles={text}: '{pair}' is not <quantile>:<error>, both between 0 and 1"
            )
        quantiles.append((quantile, error))
    return tuple(quantiles)
