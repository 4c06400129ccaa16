"""Make the counters of a new version, with the histograms that `model_metrics` in its config describes."""

import logging
import math
from collections.abc import Sequence

from triune.core.distributions import FIRST_RESPONSE_BUCKETS_MS, Distributions, Histogram
from triune.core.errors import InvalidArgumentError
from triune.core.statistics import ModelStatistics
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage

FIRST_RESPONSE_FAMILY = "nv_inference_first_response_histogram_ms"
"""The only histogram whose buckets a config may set, as in Triton."""

_log = logging.getLogger(__name__)


def new_statistics(message: ModelConfigMessage, *, has_distributions: bool) -> ModelStatistics:
    """Make the counters of a version that was just loaded, with histograms of latencies and sizes if
    `has_distributions`.
    """
    statistics = ModelStatistics()
    if has_distributions:
        statistics.distributions = Distributions(Histogram(first_response_buckets_ms(message)))
    return statistics


def require_bounds(message: ModelConfigMessage) -> None:
    """Raise InvalidArgumentError if `model_metrics` has a bucket that is not a finite number."""
    for control in message.model_metrics.metric_control:
        for bound in control.histogram_options.buckets:
            if not math.isfinite(bound):
                raise InvalidArgumentError(
                    f"model '{message.name}' has the bucket {bound} in 'model_metrics'; bounds of buckets are finite "
                    "numbers, and +Inf is added: remove it"
                )


def first_response_buckets_ms(message: ModelConfigMessage) -> Sequence[float]:
    """The bounds of the histogram of the time to the first response, in ms, ascending: those in the config, or Triton's
    default.
    """
    bounds: Sequence[float] = FIRST_RESPONSE_BUCKETS_MS
    for control in message.model_metrics.metric_control:
        family = control.metric_identifier.family
        if family != FIRST_RESPONSE_FAMILY:
            _log.warning(
                "model '%s': metric family '%s' is not a customizable metric; '%s' is",
                message.name,
                family,
                FIRST_RESPONSE_FAMILY,
            )
        elif control.histogram_options.buckets:
            bounds = tuple(sorted(set(control.histogram_options.buckets)))
    return bounds
