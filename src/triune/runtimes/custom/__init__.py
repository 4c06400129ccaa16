"""Custom operators in every runtime: a body becomes a function of the model, and numpy computes operators without a
body.
"""

from triune.runtimes.custom.resolved import resolved_file
from triune.runtimes.custom.runtime import WithCustomOps

__all__ = ["WithCustomOps", "resolved_file"]
