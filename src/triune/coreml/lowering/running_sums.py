"""Lowering of CumSum."""

import numpy as np

from triune.coreml.lowering.context import Context, Lowering, is_float, like
from triune.coreml.lowering.mb import Var, mb
from triune.graph.axes import positive


def _cumsum(c: Context) -> None:
    x = c.input(0)
    axis = positive(c.ints(1, "the axis of a running sum")[0], x.rank)
    is_reverse = bool(c.attributes.get("reverse", 0))
    total = mb.cumsum(x=x, axis=axis, reverse=is_reverse, exclusive=False)
    if not c.attributes.get("exclusive", 0):
        c.give(total)
        return
    # An exclusive sum begins with a zero and omits the last sum.
    zero = mb.mul(x=_cut(x, axis, 0, 1), y=like(x, 0)) if not is_float(x) else _zeros(x, axis)
    if is_reverse:
        c.give(_cut(mb.concat(values=[total, zero], axis=axis), axis, 1, None))
    else:
        c.give(_cut(mb.concat(values=[zero, total], axis=axis), axis, 0, -1))


def _zeros(x: Var, axis: int) -> Var:
    """Zeros in the shape of a slice of `x` of length 1 along `axis`; x * 0 would be NaN for infinities and NaN."""
    row = _cut(x, axis, 0, 1)
    return mb.mul(x=mb.cast(x=mb.equal(x=row, y=row), dtype="fp32"), y=np.float32(0))


def _cut(x: Var, axis: int, begin: int, end: int | None) -> Var:
    """A slice along one axis. If `end` is None, it extends to the end of the axis; a negative `end` counts from
    the end.
    """
    begins, ends = [0] * x.rank, [0] * x.rank
    begins[axis], ends[axis] = begin, end or 0
    masks = [each != axis for each in range(x.rank)]
    end_masks = [each or end is None for each in masks]
    return mb.slice_by_index(x=x, begin=begins, end=ends, begin_mask=masks, end_mask=end_masks)


TABLE: dict[str, Lowering] = {"CumSum": _cumsum}
