"""Lowering of NonMaxSuppression, where the number of boxes is known.

Core ML's own operation is not used: what it returns for missing boxes is not documented.
"""

from triune.coreml.lowering.context import Context, Lowering, static_shape
from triune.graph.conversion.lowering.suppression import non_max_suppression


def _non_max_suppression(c: Context) -> None:
    static_shape(c.input(1), "the number of boxes")
    non_max_suppression(c)


TABLE: dict[str, Lowering] = {"NonMaxSuppression": _non_max_suppression}
