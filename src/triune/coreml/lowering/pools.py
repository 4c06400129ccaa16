"""Pools."""

import itertools
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
from triune.coreml.lowering.window import Window, pairs, window_of

_MOST_PLACES = 256
"""A window is written out element by element up to this size."""


def _max_pool(c: Context) -> None:
    x = c.input(0)
    window = window_of(c, x, c.attributes["kernel_shape"])
    is_ceil = bool(c.attributes.get("ceil_mode", 0))
    is_plain = not is_ceil and all(each == 1 for each in window.dilations) and not c.wants(1)
    if is_plain and x.rank <= 5 and all(pad < k for pad, k in zip(pairs(window), _twice(window.kernel), strict=True)):
        kind = x.dtype
        # ONNX pools bytes, whose values fp32 has exactly.
        wide = x if is_float(x) else mb.cast(x=x, dtype="fp32")
        pooled = mb.max_pool(
            x=wide, kernel_sizes=window.kernel, strides=window.strides, pad_type="custom", pad=pairs(window)
        )
        c.give(pooled if wide.dtype == kind else mb.cast(x=pooled, dtype="int32"))
        return
    values, places = _written_out(
        x, window, is_ceil=is_ceil, is_column_major=bool(c.attributes.get("storage_order", 0))
    )
    c.give(values)
    if c.wants(1):
        c.give(places, 1)


def _written_out(x: Var, window: Window, *, is_ceil: bool, is_column_major: bool) -> tuple[Var, Var]:
    """The largest element under each element of the window in turn, and where it is."""
    shape = static_shape(x, "the pooled image")
    spatial = shape[2:]
    counts = [window.count(axis, size, is_ceil=is_ceil) for axis, size in enumerate(spatial)]
    if int(np.prod(window.kernel)) > _MOST_PLACES:
        raise Refusal(f"a window of {window.kernel} with dilations, indices or ceil_mode; use a smaller one")
    lowest = -np.inf if is_float(x) else np.iinfo(np.int32).min
    padded = pad_for(x, window, spatial, counts, lowest)
    flat = _flat_indices(shape, is_column_major=is_column_major)
    indices = _pad_indices(flat, window, spatial, counts)
    best: Var = None
    where: Var = None
    for offset in itertools.product(*(range(k) for k in window.kernel)):
        begin = [o * d for o, d in zip(offset, window.dilations, strict=True)]
        end = [b + (n - 1) * s + 1 for b, n, s in zip(begin, counts, window.strides, strict=True)]
        values = mb.slice_by_index(
            x=padded, begin=[0, 0, *begin], end=[*shape[:2], *end], stride=[1, 1, *window.strides]
        )
        cut = tuple(slice(b, e, s) for b, e, s in zip(begin, end, window.strides, strict=True))
        index = np.ascontiguousarray(indices[(slice(None), slice(None), *cut)])
        if best is None:
            best, where = values, mb.const(val=index)
            continue
        is_more = mb.greater(x=values, y=best)
        best = mb.select(cond=is_more, a=values, b=best)
        where = select(is_more, mb.const(val=index), where)
    return best, where


def _flat_indices(shape: Sequence[int], *, is_column_major: bool) -> NDArray[np.int32]:
    """Of each element of an image, its index in memory."""
    plane = int(np.prod(shape[2:]))
    order = "F" if is_column_major else "C"
    within = np.arange(plane).reshape(shape[2:], order=order)
    images = np.arange(shape[0] * shape[1]).reshape(*shape[:2], *[1] * (len(shape) - 2))
    return (images * plane + within).astype(np.int32)


def _pad_indices(
    flat: NDArray[np.int32], window: Window, spatial: Sequence[int], counts: Sequence[int]
) -> NDArray[np.int32]:
    widths = [
        (window.begins[axis], max(_needed(window, axis, count) - size - window.begins[axis], 0))
        for axis, (size, count) in enumerate(zip(spatial, counts, strict=True))
    ]
    return np.pad(flat, [(0, 0), (0, 0), *widths])


def _needed(window: Window, axis: int, count: int) -> int:
    """How far the windows reach."""
    return (count - 1) * window.strides[axis] + window.extent(axis)


def pad_for(x: Var, window: Window, spatial: Sequence[int], counts: Sequence[int], value: float) -> Var:
    """The image with as much around it as the windows reach."""
    widths: list[int] = []
    for axis, (size, count) in enumerate(zip(spatial, counts, strict=True)):
        widths += [window.begins[axis], max(_needed(window, axis, count) - size - window.begins[axis], 0)]
    if not any(widths):
        return x
    if is_float(x):
        return mb.pad(x=x, pad=[0, 0, 0, 0, *widths], mode="constant", constant_val=like(x, value))
    for axis in range(len(spatial)):
        before, after = widths[2 * axis : 2 * axis + 2]
        shape = [int(dim) for dim in x.shape]
        blocks = [_block(shape, axis + 2, before, value), x, _block(shape, axis + 2, after, value)]
        kept = [block for block in blocks if block is not None]
        x = mb.concat(values=kept, axis=axis + 2) if len(kept) > 1 else x
    return x


def _block(shape: Sequence[int], axis: int, length: int, value: float) -> Any:
    if length == 0:
        return None
    form = list(shape)
    form[axis] = length
    return np.full(form, value, np.int32)


def _average_pool(c: Context) -> None:
    x = c.input(0)
    window = window_of(c, x, c.attributes["kernel_shape"])
    is_ceil, is_padding_counted = bool(c.attributes.get("ceil_mode", 0)), bool(c.attributes.get("count_include_pad", 0))
    is_small = all(pad < k for pad, k in zip(pairs(window), _twice(window.kernel), strict=True))
    if not is_ceil and all(each == 1 for each in window.dilations) and is_small:
        pooled = mb.avg_pool(
            x=x,
            kernel_sizes=window.kernel,
            strides=window.strides,
            pad_type="custom",
            pad=pairs(window),
            exclude_padding_from_average=not is_padding_counted,
        )
        c.give(pooled)
        return
    shape = static_shape(x, "the pooled image")
    channels = static_dim(x, 1, "the number of channels")
    counts = [window.count(axis, size, is_ceil=is_ceil) for axis, size in enumerate(shape[2:])]
    padded = pad_for(x, window, shape[2:], counts, 0)
    cut = mb.slice_by_index(
        x=padded,
        begin=[0] * x.rank,
        end=[*shape[:2], *(_needed(window, axis, count) for axis, count in enumerate(counts))],
    )
    sums = mb.conv(
        x=cut,
        weight=np.ones((channels, 1, *window.kernel), dtype_of(x)),
        strides=window.strides,
        dilations=window.dilations,
        pad_type="valid",
        groups=channels,
    )
    c.give(mb.real_div(x=sums, y=_divisors(window, shape[2:], counts, is_padding_counted).astype(dtype_of(x))))


def _divisors(window: Window, spatial: Sequence[int], counts: Sequence[int], is_padding_counted: bool) -> NDArray[Any]:
    """How many elements each window averages. What lies behind the padding never counts."""
    result = np.ones((1, 1))
    for axis, (size, count) in enumerate(zip(spatial, counts, strict=True)):
        low = 0 if is_padding_counted else window.begins[axis]
        high = window.begins[axis] + size + (window.ends[axis] if is_padding_counted else 0)
        starts = np.arange(count)[:, None] * window.strides[axis]
        places = starts + np.arange(window.kernel[axis]) * window.dilations[axis]
        inside = np.sum((places >= low) & (places < high), axis=1)
        result = result[..., None] * inside
    return result


def _twice(values: Sequence[int]) -> list[int]:
    return [each for each in values for _ in range(2)]


TABLE: dict[str, Lowering] = {"MaxPool": _max_pool, "AveragePool": _average_pool}
