"""Reductions, the places of the largest and smallest, running sums."""

import numpy as np

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.unary import negative
from triune.coreai.lowering.values import (
    axes,
    axis,
    cast,
    constant,
    dtype_of,
    is_bool,
    is_float,
    like,
    rank_of,
    size_of,
    sizes,
)
from triune.graph.axes import positive


def _places(c: Context, x: Value) -> list[int] | None:
    """The axes to reduce; None where there is nothing to do."""
    if c.has(1):
        places = [positive(each, rank_of(x)) for each in c.ints(1, "the axes of a reduction")]
        if places:
            return places
    if c.attributes.get("noop_with_empty_axes", 0) or rank_of(x) == 0:
        return None
    return list(range(rank_of(x)))


def _give(c: Context, x: Value, places: list[int]) -> None:
    """`x`, which has been reduced, with or without the dimensions of size 1 that are left."""
    c.give(x if c.attributes.get("keepdims", 1) else ops.shrink_dims(x, axes(places)))


def _reduce(name: str) -> Lowering:
    def lower(c: Context) -> None:
        x = c.input(0)
        places = _places(c, x)
        if places is None:
            c.give(x)
            return
        # Truth values as 0 and 1.
        result = getattr(ops, name)(cast(x, np.int32) if is_bool(x) else x, axes(places))
        _give(c, cast(result, np.bool_) if is_bool(x) else result, places)

    return lower


def _summed(x: Value) -> Value:
    """`x` as what sums it takes it: in fp16 Core AI adds in fp16 too, where a mean of moderate numbers is infinite."""
    return cast(x, np.float32) if dtype_of(x) == np.float16 else x


def _sum(c: Context) -> None:
    x = c.input(0)
    places = _places(c, x)
    if places is None:
        c.give(x)
    else:
        _give(c, cast(ops.reduce_sum(_summed(x), axes(places)), dtype_of(x)), places)


def _mean(c: Context) -> None:
    x = c.input(0)
    places = _places(c, x)
    if places is None:
        c.give(x)
    elif is_float(x):
        _give(c, cast(ops.reduce_mean(_summed(x), axes(places)), dtype_of(x)), places)
    else:
        count = constant(np.int32(1))
        for place in places:
            count = ops.mul(count, size_of(x, place))
        _give(c, ops.broadcasting_divide(ops.reduce_sum(x, axes(places)), count), places)


def _arg_max(c: Context) -> None:
    x = c.input(0)
    _arg(c, cast(x, np.int32) if is_bool(x) else x)


def _arg_min(c: Context) -> None:
    x = c.input(0)
    # Of whole numbers -1 - x: the smallest one has no negative.
    _arg(c, negative(x) if is_float(x) else ops.broadcasting_sub(constant(np.int32(-1)), cast(x, np.int32)))


def _arg(c: Context, x: Value) -> None:
    """The place of the largest of `x`."""
    place = positive(int(c.attributes.get("axis", 0)), rank_of(x))
    if c.attributes.get("select_last_index", 0):
        # The first from the end.
        found = cast(ops.argmax(ops.reverse(x, axes([place])), axis(place)), np.int32)
        found = ops.broadcasting_sub(ops.sub(size_of(x, place), constant(np.int32(1))), found)
    else:
        found = cast(ops.argmax(x, axis(place)), np.int32)
    _give(c, found, [place])


def _cumsum(c: Context) -> None:
    given = c.input(0)
    x, rank = _summed(given), rank_of(given)
    place = positive(c.ints(1, "the axis of a running sum")[0], rank)
    is_reverse = bool(c.attributes.get("reverse", 0))
    if c.attributes.get("exclusive", 0):
        # All but the last, behind a zero.
        widths = [0] * (2 * rank)
        widths[2 * place + is_reverse] = 1
        wider = ops.pad(x, sizes(widths), like(x, 0))
        begins, ends = [0] * rank, [np.iinfo(np.int32).max] * rank
        begins[place], ends[place] = (1, ends[place]) if is_reverse else (0, -1)
        x = ops.slice_(wider, axes(begins), axes(ends), axes([1] * rank))
    found = ops.scan(x, constant(np.uint32(place)), constant(np.bool_(is_reverse)))
    c.give(cast(found, dtype_of(given)))


TABLE: dict[str, Lowering] = {
    "ReduceSum": _sum,
    "ReduceMax": _reduce("reduce_max"),
    "ReduceMin": _reduce("reduce_min"),
    "ReduceProd": _reduce("reduce_product"),
    "ReduceMean": _mean,
    "ArgMax": _arg_max,
    "ArgMin": _arg_min,
    "CumSum": _cumsum,
}
