"""Pools."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.coreml.lowering.broadcast import select
from triune.coreml.lowering.context import (
    Context,
    Lowering,
    Refusal,
    dtype_of,
    is_float,
    like,
    static_dim,
    static_shape,
)
from triune.coreml.lowering.mb import Var, mb
from triune.coreml.lowering.window import flat, padding_of
from triune.graph.conversion.window import Window, flat_indices, window_of

_MOST_PLACES = 256
"""A window is written out element by element up to this size."""


def _max_pool(c: Context) -> None:
    x = c.input(0)
    window = window_of(c.attributes, c.attributes["kernel_shape"])
    padding = padding_of(x, window)
    is_ceil = bool(c.attributes.get("ceil_mode", 0))
    is_plain = not is_ceil and all(each == 1 for each in window.dilations) and not c.wants(1)
    if is_plain and x.rank <= 5 and _is_within(padding, window):
        kind = x.dtype
        # ONNX pools bytes, whose values fp32 has exactly.
        wide = x if is_float(x) else mb.cast(x=x, dtype="fp32")
        pooled = mb.max_pool(
            x=wide, kernel_sizes=window.kernel, strides=window.strides, pad_type="custom", pad=flat(padding)
        )
        c.give(pooled if wide.dtype == kind else mb.cast(x=pooled, dtype="int32"))
        return
    values, places = _written_out(
        x, window, padding, is_ceil=is_ceil, is_column_major=bool(c.attributes.get("storage_order", 0))
    )
    c.give(values)
    if c.wants(1):
        c.give(places, 1)


def _is_within(padding: Sequence[tuple[int, int]], window: Window) -> bool:
    """Is the padding narrower than the window, as MIL's pools want it?"""
    return all(max(pair) < size for pair, size in zip(padding, window.kernel, strict=True))


def _written_out(
    x: Var, window: Window, padding: Sequence[tuple[int, int]], *, is_ceil: bool, is_column_major: bool
) -> tuple[Var, Var]:
    """The largest element under each element of the window in turn, and where it is."""
    shape = static_shape(x, "the pooled image")
    spatial = shape[2:]
    counts = [window.count(axis, size, is_ceil=is_ceil) for axis, size in enumerate(spatial)]
    if int(np.prod(window.kernel)) > _MOST_PLACES:
        raise Refusal(f"a window of {window.kernel} with dilations, indices or ceil_mode; use a smaller one")
    lowest = -np.inf if is_float(x) else np.iinfo(np.int32).min
    widths = _widths(window, padding, spatial, counts)
    padded = _pad(x, widths, lowest)
    indices = np.pad(flat_indices(shape, is_column_major=is_column_major), [(0, 0), (0, 0), *widths])
    best: Var = None
    where: Var = None
    for part in window.parts(counts):
        begin, end = [each.start for each in part], [each.stop for each in part]
        values = mb.slice_by_index(
            x=padded, begin=[0, 0, *begin], end=[*shape[:2], *end], stride=[1, 1, *window.strides]
        )
        index = np.ascontiguousarray(indices[(..., *part)])
        if best is None:
            best, where = values, mb.const(val=index)
            continue
        is_more = mb.greater(x=values, y=best)
        best = mb.select(cond=is_more, a=values, b=best)
        where = select(is_more, mb.const(val=index), where)
    return best, where


def _widths(
    window: Window, padding: Sequence[tuple[int, int]], spatial: Sequence[int], counts: Sequence[int]
) -> list[tuple[int, int]]:
    """The padding at the begin, and as much at the end as the windows reach."""
    return [
        (begin, max(window.needed(axis, count) - size - begin, 0))
        for axis, ((begin, _), size, count) in enumerate(zip(padding, spatial, counts, strict=True))
    ]


def _pad(x: Var, widths: Sequence[tuple[int, int]], value: float) -> Var:
    """`value` before and after each spatial dimension."""
    if not any(flat(widths)):
        return x
    if is_float(x):
        return mb.pad(x=x, pad=[0, 0, 0, 0, *flat(widths)], mode="constant", constant_val=like(x, value))
    for axis, (before, after) in enumerate(widths, start=2):
        shape = [int(dim) for dim in x.shape]
        blocks = [_block(shape, axis, before, value), x, _block(shape, axis, after, value)]
        kept = [block for block in blocks if block is not None]
        x = mb.concat(values=kept, axis=axis) if len(kept) > 1 else x
    return x


def _block(shape: Sequence[int], axis: int, length: int, value: float) -> Any:
    if length == 0:
        return None
    form = list(shape)
    form[axis] = length
    return np.full(form, value, np.int32)


def _average_pool(c: Context) -> None:
    x = c.input(0)
    window = window_of(c.attributes, c.attributes["kernel_shape"])
    padding = padding_of(x, window)
    is_ceil, is_padding_counted = bool(c.attributes.get("ceil_mode", 0)), bool(c.attributes.get("count_include_pad", 0))
    if not is_ceil and all(each == 1 for each in window.dilations) and _is_within(padding, window):
        pooled = mb.avg_pool(
            x=x,
            kernel_sizes=window.kernel,
            strides=window.strides,
            pad_type="custom",
            pad=flat(padding),
            exclude_padding_from_average=not is_padding_counted,
        )
        c.give(pooled)
        return
    shape = static_shape(x, "the pooled image")
    channels = static_dim(x, 1, "the number of channels")
    counts = [window.count(axis, size, is_ceil=is_ceil) for axis, size in enumerate(shape[2:])]
    padded = _pad(x, _widths(window, padding, shape[2:], counts), 0)
    cut = mb.slice_by_index(
        x=padded,
        begin=[0] * x.rank,
        end=[*shape[:2], *(window.needed(axis, count) for axis, count in enumerate(counts))],
    )
    sums = mb.conv(
        x=cut,
        weight=np.ones((channels, 1, *window.kernel), dtype_of(x)),
        strides=window.strides,
        dilations=window.dilations,
        pad_type="valid",
        groups=channels,
    )
    divisors = _divisors(window, padding, shape[2:], counts, is_padding_counted)
    c.give(mb.real_div(x=sums, y=divisors.astype(dtype_of(x))))


def _divisors(
    window: Window,
    padding: Sequence[tuple[int, int]],
    spatial: Sequence[int],
    counts: Sequence[int],
    is_padding_counted: bool,
) -> NDArray[Any]:
    """How many elements each window averages. What lies behind the padding never counts."""
    result = np.ones((1, 1))
    for axis, ((begin, end), size, count) in enumerate(zip(padding, spatial, counts, strict=True)):
        low = 0 if is_padding_counted else begin
        high = begin + size + (end if is_padding_counted else 0)
        starts = np.arange(count)[:, None] * window.strides[axis]
        places = starts + np.arange(window.kernel[axis]) * window.dilations[axis]
        inside = np.sum((places >= low) & (places < high), axis=1)
        result = result[..., None] * inside
    return result


TABLE: dict[str, Lowering] = {"MaxPool": _max_pool, "AveragePool": _average_pool}
