"""AveragePool and MaxPool. Channels are last, as in `conv`.

Sums, and the indices of maxima, are reductions of a view that has all windows. Maxima alone are computed one spatial
dimension after another: as the maximum of slices, one for each element of the kernel along that dimension. A GPU
computes each dimension in one operation.
"""

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from triune.graph.conversion.window import Window, flat_indices, pool_window
from triune.metal.context import Context, Lowering, builder_of
from triune.metal.images import channels_first
from triune.metal.library import Value, from_numpy, mx


def _average_pool(c: Context) -> None:
    x, window, counts = _window(c)
    builder = builder_of(c)
    image = builder.images.last(builder.summable(x))
    total = mx.sum(_windows(_padded(image, window, counts, 0), window, counts), axis=-2)
    is_padding = bool(c.attributes.get("count_include_pad", 0))
    numbers = [_elements(window, axis, size, counts[axis], is_padding) for axis, size in enumerate(x.shape[2:])]
    for axis, number in enumerate(numbers):
        shape = [-1 if each == 1 + axis else 1 for each in range(x.ndim)]
        total = total / from_numpy(number.astype(np.float32)).astype(total.dtype).reshape(shape)
    c.give(builder.images.first(total.astype(x.dtype)))


def _elements(window: Window, axis: int, size: int, count: int, is_padding: bool) -> NDArray[np.int64]:
    """The number of elements that each window covers along an axis. Elements of the padding count if `is_padding`."""
    begin, end = window.padding(axis, size) or (0, 0)
    starts = np.arange(count) * window.strides[axis] - begin
    places = starts[:, np.newaxis] + np.arange(window.kernel[axis]) * window.dilations[axis]
    low, high = (-begin, size + end) if is_padding else (0, size)
    return ((places >= low) & (places < high)).sum(axis=1)


def _max_pool(c: Context) -> None:
    x, window, counts = _window(c)
    is_float = c.builder.is_float(x)
    lowest = -np.inf if is_float else np.iinfo(c.builder.dtype(x)).min
    images = builder_of(c).images
    padded = _padded(images.last(x), window, counts, lowest)
    c.give(images.first(_maxima(padded, window, counts)))
    if c.wants(1):
        flat = flat_indices(x.shape, is_column_major=bool(c.attributes.get("storage_order", 0)))
        indices = _windows(_padded(images.last(from_numpy(flat)), window, counts, -1), window, counts)
        best = mx.expand_dims(mx.argmax(_windows(padded, window, counts), axis=-2), -2)
        c.give(channels_first(mx.squeeze(mx.take_along_axis(indices, best, -2), -2).astype(mx.int64)), 1)


def _maxima(padded: Value, window: Window, counts: Sequence[int]) -> Value:
    """The largest element of each window."""
    for axis, count in enumerate(counts):
        step, dilation = window.strides[axis], window.dilations[axis]
        before = (slice(None),) * (1 + axis)
        starts = (place * dilation for place in range(window.kernel[axis]))
        slices = [padded[(*before, slice(start, start + (count - 1) * step + 1, step))] for start in starts]
        padded = functools.reduce(mx.maximum, slices)
    return padded


def _window(c: Context) -> tuple[Value, Window, list[int]]:
    """The image, the window, and the number of windows along each spatial dimension."""
    x, is_ceil = c.input(0), bool(c.attributes.get("ceil_mode", 0))
    sizes = x.shape[2:]
    window = pool_window(c.attributes, sizes)
    return x, window, [window.count(axis, size, is_ceil=is_ceil) for axis, size in enumerate(sizes)]


def _padded(image: Value, window: Window, counts: Sequence[int], filler: float) -> Value:
    """An image with channels last, padded with a number as far as the windows reach."""
    widths = [(0, 0)]
    for axis, size in enumerate(image.shape[1:-1]):
        begin, _ = window.padding(axis, size) or (0, 0)
        widths.append((begin, max(window.needed(axis, counts[axis]) - size - begin, 0)))
    if not any(map(any, widths)):
        return image
    return mx.pad(image, [*widths, (0, 0)], constant_values=mx.array(filler, dtype=image.dtype))


def _windows(image: Value, window: Window, counts: Sequence[int]) -> Value:
    """The windows of a padded image: (batch, positions..., elements of a window, channels)."""
    padded = mx.contiguous(image)
    shape: list[int] = padded.shape
    steps = [math.prod(shape[axis + 1 :]) for axis in range(padded.ndim)]
    spatial = range(len(counts))
    strides = [
        steps[0],
        *(steps[1 + axis] * window.strides[axis] for axis in spatial),
        *(steps[1 + axis] * window.dilations[axis] for axis in spatial),
        1,
    ]
    found = mx.as_strided(padded, [shape[0], *counts, *window.kernel, shape[-1]], strides)
    return found.reshape((shape[0], *counts, -1, shape[-1]))


TABLE: Mapping[str, Lowering] = {"AveragePool": _average_pool, "MaxPool": _max_pool}
