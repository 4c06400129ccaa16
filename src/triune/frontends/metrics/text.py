"""Write Prometheus' text format without changing the names of metrics.

`prometheus_client.generate_latest` writes `name_total` for every counter. Triton's counters have no such suffix, and
dashboards ask for Triton's names. Source: Prometheus' exposition formats, text version 0.0.4.
"""

import math
from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def write_text(families: Iterable[Metric]) -> str:
    """Format metric families with their help, type and samples in Prometheus' text format."""
    lines: list[str] = []
    for family in families:
        documentation = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        lines.append(f"# HELP {family.name} {documentation}")
        lines.append(f"# TYPE {family.name} {family.type}")
        for sample in family.samples:
            labels = ",".join(f'{name}="{_escape(value)}"' for name, value in sorted(sample.labels.items(), key=_order))
            lines.append(f"{sample.name}{f'{{{labels}}}' if labels else ''} {number(sample.value)}")
    return "\n".join(lines) + "\n"


def _order(label: tuple[str, str]) -> tuple[bool, str]:
    """The sort key for Triton's order of labels: by name, but `le` and `quantile` last."""
    return label[0] in ("le", "quantile"), label[0]


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def number(value: float) -> str:
    """Format a number in Prometheus' text format, in which infinity is `+Inf` or `-Inf`."""
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else f"{'+' if value > 0 else '-'}Inf"
