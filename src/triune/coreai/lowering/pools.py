"""Lowering of MaxPool and AveragePool."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.coreai.library import Value, dialect, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import Dim, dims_of, spread
from triune.coreai.lowering.values import (
    constant,
    dtype_of,
    int32s,
    known_shape,
    like,
    shape_of,
    sizes,
    tensor_type,
)
from triune.coreai.lowering.windows import (
    at_least_two,
    excess_of,
    is_some,
    off_plane,
    on_plane,
    pad,
    spatial_of,
    widths_of,
)
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.window import Window, flat_indices, pool_window

_MOST_WINDOW_ELEMENTS = 256
"""The largest window, in elements, that is unrolled if the indices of the maxima are wanted."""


def _window(c: Context, x: Value) -> tuple[Window, list[tuple[Dim, Dim]], list[tuple[Dim, Dim]]]:
    """The window, the padding of each spatial dimension, and the elements that `ceil_mode` adds after the padding."""
    spatial = spatial_of(x, "a pool")
    window = pool_window(c.attributes, shape_of(x)[2:])
    none: list[tuple[Dim, Dim]] = [(0, 0)] * spatial
    return window, widths_of(x, window), excess_of(x, window) if c.attributes.get("ceil_mode", 0) else none


def _max_pool(c: Context) -> None:
    x = c.input(0)
    window, widths, excess = _window(c, x)
    padded = pad(pad(x, widths, -np.inf), excess, -np.inf)
    if c.wants(1):
        values, places = _max_with_indices(c, padded, window, x, widths, excess)
        c.give(values)
        c.give(places, 1)
        return
    spatial = len(window.kernel)
    counts = [
        None if size is None else (size - window.extent(axis)) // window.strides[axis] + 1
        for axis, size in enumerate(shape_of(padded)[2:])
    ]
    make = dialect.MaxPool2dOp if spatial <= 2 else dialect.MaxPool3dOp
    made = make(
        output=tensor_type([*shape_of(x)[:2], *([1] if spatial == 1 else []), *counts], dtype_of(x)),
        input=on_plane(padded),
        kernel_size=sizes(at_least_two(window.kernel, 1)),
        stride=sizes(at_least_two(window.strides, 1)),
        dilation=sizes(at_least_two(window.dilations, 1)),
        ceil_mode=constant(np.bool_(False)),
    )
    made.operation.verify()
    c.give(off_plane(made.result, spatial))


def _max_with_indices(
    c: Context,
    padded: Value,
    window: Window,
    x: Value,
    widths: Sequence[tuple[Dim, Dim]],
    excess: Sequence[tuple[Dim, Dim]],
) -> tuple[Value, Value]:
    """Write MaxPool: the largest element in each window, and its index in the flattened input.

    A slice with the window's strides is taken for each element of the window, and the slices are compared one after the
    other.
    """
    shape, whole = known_shape(x), known_shape(padded)
    if shape is None or whole is None:
        raise Refusal("the indices of a MaxPool, where sizes of the image are not fixed; give fixed sizes with --shape")
    if math.prod(window.kernel) > _MOST_WINDOW_ELEMENTS:
        raise Refusal(
            f"the indices of a MaxPool with a window of {window.kernel}; use at most {_MOST_WINDOW_ELEMENTS} elements"
        )
    flat = flat_indices(shape, is_column_major=bool(c.attributes.get("storage_order", 0)))
    known: Any = [(one[0], one[1] + other[1]) for one, other in zip(widths, excess, strict=True)]
    indices = np.pad(flat, [(0, 0), (0, 0), *known])
    counts = [(size - window.extent(axis)) // window.strides[axis] + 1 for axis, size in enumerate(whole[2:])]
    best: Value | None = None
    where: Value | None = None
    for part in window.parts(counts):
        begins, ends = [each.start for each in part], [each.stop for each in part]
        values = ops.slice_(
            padded, int32s([0, 0, *begins]), int32s([*shape[:2], *ends]), int32s([1, 1, *window.strides])
        )
        index = constant(np.ascontiguousarray(indices[(..., *part)]))
        if best is None:
            best, where = values, index
            continue
        is_more = ops.greater(values, best)
        best, where = ops.where(is_more, values, best), ops.where(is_more, index, where)
    return best, where


def _average_pool(c: Context) -> None:
    x = c.input(0)
    window, widths, excess = _window(c, x)
    size = math.prod(window.kernel)
    # The sum may overflow fp16 even if the average does not. Multiply by a power of two first, which does not round.
    shrink = 2.0 ** -math.ceil(math.log2(size)) if dtype_of(x) == np.float16 else 1.0
    padded = pad(pad(x, widths, 0), excess, 0)
    small = ops.broadcasting_mul(padded, like(x, shrink)) if shrink != 1 else padded
    sums = _window_sums(small, window)
    is_padding_counted = bool(c.attributes.get("count_include_pad", 0))
    is_partial = _has_edge(excess) or (_has_edge(widths) and not is_padding_counted)
    counts = like(x, size) if not is_partial else _averaged_counts(x, window, widths, excess, is_padding_counted)
    factor = ops.broadcasting_mul(counts, like(x, shrink)) if shrink != 1 else counts
    c.give(ops.broadcasting_divide(sums, factor))


def _window_sums(x: Value, window: Window) -> Value:
    spatial = len(window.kernel)
    sums = (ops.sumpool2d if spatial <= 2 else ops.sumpool3d)(
        on_plane(x),
        sizes(at_least_two(window.kernel, 1)),
        sizes(at_least_two(window.strides, 1)),
        sizes(at_least_two(window.dilations, 1)),
    )
    return off_plane(sums, spatial)


def _has_edge(widths: Sequence[tuple[Dim, Dim]]) -> bool:
    return any(is_some(each) for pair in widths for each in pair)


def _averaged_counts(
    x: Value,
    window: Window,
    widths: Sequence[tuple[Dim, Dim]],
    excess: Sequence[tuple[Dim, Dim]],
    is_padding_counted: bool,
) -> Value:
    """The number of elements that count in each average: the image, and the padding if `is_padding_counted`.

    Elements that `ceil_mode` adds after the padding never count.
    """
    edge = 1 if is_padding_counted else 0
    spatial = known_shape(x) or []
    if not spatial:
        ones = spread(like(x, 1), [1, 1, *dims_of(x)[2:]])
        return _window_sums(pad(pad(ones, widths, edge), excess, 0), window)
    counts: NDArray[Any] = np.ones((1, 1))
    for axis, size in enumerate(spatial[2:]):
        known: Any = (widths[axis], excess[axis])
        line = np.pad(np.pad(np.ones(size), known[0], constant_values=edge), known[1])
        starts = np.arange(0, len(line) - window.extent(axis) + 1, window.strides[axis])
        places = starts[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
        counts = counts[..., None] * line[places].sum(axis=1)
    return constant(counts.astype(dtype_of(x)))


TABLE: dict[str, Lowering] = {"MaxPool": _max_pool, "AveragePool": _average_pool}
