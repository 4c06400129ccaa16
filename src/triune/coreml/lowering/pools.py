"""Lowering of MaxPool and AveragePool."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from triune.coreml.lowering.broadcast import as_vector, sizes_of
from triune.coreml.lowering.context import (
    Context,
    Lowering,
    Refusal,
    dtype_of,
    is_float,
    like,
    static_dim,
)
from triune.coreml.lowering.mb import Var, mb
from triune.coreml.lowering.window import flat, image_sizes, pad_words, padding_of
from triune.graph.conversion.window import SAME, Window, pool_window

_MOST_WINDOW_ELEMENTS = 256
"""The largest window, in elements, that is unrolled."""

Widths: TypeAlias = list[tuple[int, int]]
"""The padding before and after each spatial dimension."""


def _max_pool(c: Context) -> None:
    x = c.input(0)
    # ONNX also pools int8 and uint8. Cast these to fp32, which represents them exactly.
    wide = x if is_float(x) else mb.cast(x=x, dtype="fp32")
    words = None if c.wants(1) else _words(c, x)
    if words is not None:
        values = mb.max_pool(x=wide, **words)
        c.give(values if is_float(x) else mb.cast(x=values, dtype="int32"))
        return
    window, widths = _window(c, x)
    if c.wants(1):
        values, places = _max_with_indices(c, wide, window, widths)
        c.give(places, 1)
    elif any(each != 1 for each in window.dilations):
        values, _ = _max_with_indices(c, wide, window, widths)
    else:
        if not _is_allowed_padding(widths, window):
            wide, widths = _padded(wide, widths, -np.inf), [(0, 0)] * len(widths)
        values = mb.max_pool(
            x=wide, kernel_sizes=window.kernel, strides=window.strides, pad_type="custom", pad=flat(widths)
        )
    c.give(values if is_float(x) else mb.cast(x=values, dtype="int32"))


def _words(c: Context, x: Var) -> Mapping[str, Any] | None:
    """The parameters `kernel_sizes`, `strides` and `pad_type` ("same" or "same_lower") of MIL's pool, if the amount of
    padding depends on a size that is known only at run time; None if the amount is known.
    """
    window = pool_window(c.attributes, image_sizes(x))
    words = pad_words(x, window, c.target)
    return None if words is None else {"kernel_sizes": window.kernel, "strides": window.strides, **words}


def _window(c: Context, x: Var) -> tuple[Window, Widths]:
    """The window, and the padding before and after each spatial dimension; `ceil_mode` adds to the one after."""
    window = pool_window(c.attributes, image_sizes(x))
    widths = padding_of(x, window)
    if not c.attributes.get("ceil_mode", 0) or window.auto_pad in SAME:
        return window, widths
    return window, [(begin, window.reach(axis, end)) for axis, (begin, end) in enumerate(widths)]


def _is_allowed_padding(widths: Widths, window: Window) -> bool:
    """Whether the padding of each dimension is less than the window's size, as MIL's pools require."""
    return all(max(pair) < size for pair, size in zip(widths, window.kernel, strict=True))


def _padded(x: Var, widths: Widths, value: float) -> Var:
    """Pad the spatial dimensions of `x` with `value`."""
    if not any(flat(widths)):
        return x
    return mb.pad(x=x, pad=[0, 0, 0, 0, *flat(widths)], mode="constant", constant_val=like(x, value))


def _max_with_indices(c: Context, x: Var, window: Window, widths: Widths) -> tuple[Var, Var]:
    """Write MaxPool: the largest element in each window, and its index in the flattened input.

    MIL's max_pool gives no indices. So a slice of `x` with the window's strides is taken for each element of the
    window, and the slices are compared one after the other.
    """
    if math.prod(window.kernel) > _MOST_WINDOW_ELEMENTS:
        raise Refusal(f"a window of {window.kernel} with dilations or indices; use a smaller one")
    steps = _flat_strides(x, is_column_major=bool(c.attributes.get("storage_order", 0)))
    padded = _padded(x, widths, -np.inf)
    best: Var = None
    where: Var = None
    origins: Var = None
    for offsets in np.ndindex(*window.kernel):
        begins = [offset * dilation for offset, dilation in zip(offsets, window.dilations, strict=True)]
        # Slice the element at `offsets` of each window. The end of the slice is behind the element of the last window
        # that fits into the padded image.
        ends = [begin + 1 - window.extent(axis) for axis, begin in enumerate(begins)]
        values = mb.slice_by_index(
            x=padded,
            begin=[0, 0, *begins],
            end=[0, 0, *ends],
            stride=[1, 1, *window.strides],
            end_mask=[True, True, *(end == 0 for end in ends)],
        )
        place = _scaled_sum(
            [(begin - before, step) for begin, (before, _), step in zip(begins, widths, steps[2:], strict=True)]
        )
        if best is None:
            origins = _window_starts(values, steps, window)
            best, where = values, mb.add(x=origins, y=place)
            continue
        is_more = mb.greater(x=values, y=best)
        best = mb.select(cond=is_more, a=values, b=best)
        where = mb.select(cond=is_more, a=mb.add(x=origins, y=place), b=where)
    return best, where


def _flat_strides(x: Var, *, is_column_major: bool) -> list[Any]:
    """The distance in the flattened `x` between neighbours along each dimension: an int, or a scalar of the program."""
    sizes = sizes_of(x)
    order = [0, 1, *range(2, x.rank)] if not is_column_major else [0, 1, *reversed(range(2, x.rank))]
    steps: list[Any] = [1] * x.rank
    step: Any = 1
    for axis in reversed(order):
        steps[axis] = step
        step = _times(step, sizes[axis])
    return steps


def _times(one: Any, other: Any) -> Any:
    if isinstance(one, int) and isinstance(other, int):
        return one * other
    if isinstance(one, int):
        one, other = other, one
    return mb.mul(x=one, y=np.int32(other) if isinstance(other, int) else other)


def _scaled_sum(pairs: Sequence[tuple[int, Any]]) -> Any:
    """The sum of number * stride over `pairs` (number, stride): an np.int32, or a scalar of the program."""
    total: Any = np.int32(sum(number * step for number, step in pairs if isinstance(step, int)))
    for number, step in pairs:
        if not isinstance(step, int):
            total = mb.add(x=_times(number, step), y=total)
    return total


def _window_starts(pooled: Var, steps: Sequence[Any], window: Window) -> Var:
    """The index in the flattened input of the first element of each window, if there were no padding."""
    total: Var = None
    for axis, (size, step) in enumerate(zip(sizes_of(pooled), steps, strict=True)):
        stride = 1 if axis < 2 else window.strides[axis - 2]
        end = np.int32(size) if isinstance(size, int) else size
        line = mb.range_1d(start=np.int32(0), end=end, step=np.int32(1))
        by = _times(step, stride)
        line = mb.mul(x=line, y=np.int32(by) if isinstance(by, int) else by)
        others = [each for each in range(pooled.rank) if each != axis]
        spread = mb.expand_dims(x=line, axes=others)
        total = spread if total is None else mb.add(x=total, y=spread)
    return total


def _average_pool(c: Context) -> None:
    x, is_counted = c.input(0), bool(c.attributes.get("count_include_pad", 0))
    words = _words(c, x)
    if words is not None:
        c.give(mb.avg_pool(x=x, exclude_padding_from_average=not is_counted, **words))
        return
    window, widths = _window(c, x)
    if is_counted:
        # With `ceil_mode` the last window may reach beyond the padding. ONNX's mean counts the zeros of the padding,
        # but nothing beyond it. So write only the node's own padding as zeros.
        own = [(begin, min(end, reach)) for (begin, end), (_, reach) in zip(padding_of(x, window), widths, strict=True)]
        x = _padded(x, own, 0)
        widths = [(0, reach - end) for (_, reach), (_, end) in zip(widths, own, strict=True)]
    if all(each == 1 for each in window.dilations) and _is_allowed_padding(widths, window):
        pooled = mb.avg_pool(
            x=x,
            kernel_sizes=window.kernel,
            strides=window.strides,
            pad_type="custom",
            pad=flat(widths),
            exclude_padding_from_average=True,
        )
        c.give(pooled)
        return
    channels = static_dim(x, 1, "the number of channels")
    if not any(flat(widths)):
        c.give(mb.real_div(x=_window_sums(x, window, channels), y=like(x, math.prod(window.kernel))))
        return
    counts = mb.fill(shape=as_vector([1, 1, *sizes_of(x)[2:]]), value=like(x, 1))
    sums, counts = (
        _window_sums(_padded(each, widths, 0), window, count) for each, count in ((x, channels), (counts, 1))
    )
    c.give(mb.real_div(x=sums, y=counts))


def _window_sums(x: Var, window: Window, channels: int) -> Var:
    """The sum of the elements in each window."""
    return mb.conv(
        x=x,
        weight=np.ones((channels, 1, *window.kernel), dtype_of(x)),
        strides=window.strides,
        dilations=window.dilations,
        pad_type="valid",
        groups=channels,
    )


TABLE: dict[str, Lowering] = {"MaxPool": _max_pool, "AveragePool": _average_pool}
