"""Custom operators in every runtime: bodies become functions of the model, and numpy computes what has none."""

from triune.runtimes.custom.resolved import resolved_file
from triune.runtimes.custom.runtime import WithCustomOps

__all__ = ["WithCustomOps", "resolved_file"]
