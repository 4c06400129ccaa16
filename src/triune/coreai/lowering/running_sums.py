"""Lowering of CumSum."""

import numpy as np

from triune.coreai.library import ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.values import cast, constant, dtype_of, int32s, like, rank_of, sizes
from triune.graph.axes import positive


def _cumsum(c: Context) -> None:
    given = c.input(0)
    x, rank = c.builder.summable(given), rank_of(given)
    axis = positive(c.ints(1, "the axis of a running sum")[0], rank)
    is_reverse = bool(c.attributes.get("reverse", 0))
    if c.attributes.get("exclusive", 0):
        # An exclusive sum is the running sum of a zero and of all elements but the last.
        widths = [0] * (2 * rank)
        widths[2 * axis + is_reverse] = 1
        wider = ops.pad(x, sizes(widths), like(x, 0))
        begins, ends = [0] * rank, [np.iinfo(np.int32).max] * rank
        begins[axis], ends[axis] = (1, ends[axis]) if is_reverse else (0, -1)
        x = ops.slice_(wider, int32s(begins), int32s(ends), int32s([1] * rank))
    found = ops.scan(x, constant(np.uint32(axis)), constant(np.bool_(is_reverse)))
    c.give(cast(found, dtype_of(given)))


TABLE: dict[str, Lowering] = {"CumSum": _cumsum}
