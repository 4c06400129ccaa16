"""Prometheus' text format, with the names that the families have.

`prometheus_client.generate_latest` writes `name_total` for every counter. Triton's counters have no such suffix, and
dashboards ask for Triton's names. Source: Prometheus' exposition formats, text version 0.0.4.
"""

import math
from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def write_text(families: Iterable[Metric]) -> str:
    """The families, each with its help, its type and its samples, as Prometheus reads them."""
    lines: list[str] = []
    for family in families:
        documentation = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        lines.append(f"# HELP {family.name} {documentation}")
        lines.append(f"# TYPE {family.name} {family.type}")
        for sample in family.samples:
            labels = ",".join(f'{name}="{_escape(value)}"' for name, value in sorted(sample.labels.items(), key=_place))
            lines.append(f"{sample.name}{f'{{{labels}}}' if labels else ''} {number(sample.value)}")
    return "\n".join(lines) + "\n"


def _place(label: tuple[str, str]) -> tuple[bool, str]:
    """Triton's order: by name, a bucket's bound and a quantile last."""
    return label[0] in ("le", "quantile"), label[0]


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def number(value: float) -> str:
    """A number as Prometheus reads it."""
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else f"{'+' if value > 0 else '-'}Inf"
