"""Reductions, the places of the largest and smallest, running sums."""

import numpy as np

from triune.coreml.lowering.binary import divide_integers
from triune.coreml.lowering.broadcast import sizes_of
from triune.coreml.lowering.context import Context, Lowering, is_bool, is_float, like, static_dim, through_int
from triune.coreml.lowering.mb import Var, mb
from triune.graph.axes import positive


def _axes(c: Context, x: Var) -> list[int] | None:
    """The axes to reduce; None where there is nothing to do."""
    if c.has(1):
        axes = [positive(each, x.rank) for each in c.ints(1, "the axes of a reduction")]
        if axes:
            return axes
    if c.attributes.get("noop_with_empty_axes", 0) or x.rank == 0:
        return None
    return list(range(x.rank))


def _reduce(name: str) -> Lowering:
    def lower(c: Context) -> None:
        x = c.input(0)
        axes = _axes(c, x)
        keep = bool(c.attributes.get("keepdims", 1))
        if axes is None:
            c.give(x)
            return
        c.give(through_int(x, lambda each: getattr(mb, name)(x=each, axes=axes, keep_dims=keep)))

    return lower


def _mean(c: Context) -> None:
    x = c.input(0)
    axes = _axes(c, x)
    keep = bool(c.attributes.get("keepdims", 1))
    if axes is None:
        c.give(x)
    elif is_float(x):
        c.give(mb.reduce_mean(x=x, axes=axes, keep_dims=keep))
    else:
        total = mb.reduce_sum(x=x, axes=axes, keep_dims=keep)
        count = np.prod([static_dim(x, axis, "the number of elements of an integer mean") for axis in axes])
        c.give(divide_integers(total, mb.const(val=np.int32(count))))


def _arg(name: str) -> Lowering:
    def lower(c: Context) -> None:
        x = c.input(0)
        if is_bool(x):
            x = mb.cast(x=x, dtype="int32")
        axis = positive(int(c.attributes.get("axis", 0)), x.rank)
        keep = bool(c.attributes.get("keepdims", 1))
        if not c.attributes.get("select_last_index", 0):
            c.give(getattr(mb, name)(x=x, axis=axis, keep_dims=keep))
            return
        # The first from the end.
        place = getattr(mb, name)(x=mb.reverse(x=x, axes=[axis]), axis=axis, keep_dims=keep)
        size = sizes_of(x)[axis]
        last = np.int32(size - 1) if isinstance(size, int) else mb.sub(x=size, y=np.int32(1))
        c.give(mb.sub(x=last, y=place))

    return lower


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
    """Zeros in the form of one slice of `x`, whatever is in it."""
    row = _cut(x, axis, 0, 1)
    return mb.mul(x=mb.cast(x=mb.equal(x=row, y=row), dtype="fp32"), y=np.float32(0))


def _cut(x: Var, axis: int, begin: int, end: int) -> Var:
    begins, ends = [0] * x.rank, [0] * x.rank
    begins[axis], ends[axis] = begin, end
    masks = [each != axis for each in range(x.rank)]
    return mb.slice_by_index(x=x, begin=begins, end=ends, begin_mask=masks, end_mask=masks)


TABLE: dict[str, Lowering] = {
    "ReduceSum": _reduce("reduce_sum"),
    "ReduceMax": _reduce("reduce_max"),
    "ReduceMin": _reduce("reduce_min"),
    "ReduceProd": _reduce("reduce_prod"),
    "ReduceMean": _mean,
    "ArgMax": _arg("reduce_argmax"),
    "ArgMin": _arg("reduce_argmin"),
    "CumSum": _cumsum,
}
