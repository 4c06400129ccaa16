"""Lowering of CumSum."""

import numpy as np

from triune.coreml.lowering.context import Context, Lowering, is_float, like, static_dim
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
    size = static_dim(x, axis, "the length of an exclusive running sum")
    zero = mb.mul(x=_cut(x, axis, 0, 1), y=like(x, 0)) if not is_float(x) else _zeros(x, axis)
    if size == 1:
        c.give(zero)
    elif is_reverse:
        c.give(mb.concat(values=[_cut(total, axis, 1, size), zero], axis=axis))
    else:
        c.give(mb.concat(values=[zero, _cut(total, axis, 0, size - 1)], axis=axis))


def _zeros(x: Var, axis: int) -> Var:
    """Zeros in the shape of a slice of `x` of length 1 along `axis`; x * 0 would be NaN for infinities and NaN."""
    row = _cut(x, axis, 0, 1)
    return mb.mul(x=mb.cast(x=mb.equal(x=row, y=row), dtype="fp32"), y=np.float32(0))


def _cut(x: Var, axis: int, begin: int, end: int) -> Var:
    begins, ends = [0] * x.rank, [0] * x.rank
    begins[axis], ends[axis] = begin, end
    masks = [each != axis for each in range(x.rank)]
    return mb.slice_by_index(x=x, begin=begins, end=ends, begin_mask=masks, end_mask=masks)


TABLE: dict[str, Lowering] = {"CumSum": _cumsum}
