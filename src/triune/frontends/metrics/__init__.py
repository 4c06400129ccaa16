"""Prometheus metrics: Triton's under Triton's names, and Triune's own by unit."""

from triune.frontends.metrics.server import MetricsServer

__all__ = ["MetricsServer"]
