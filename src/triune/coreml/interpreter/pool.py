"""Pools: averages, roots of sums of squares, and maxima over windows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from triune.coreml.interpreter.values import Family
from triune.coreml.interpreter.windows import num_windows, padding, taps
from triune.coreml.mil import Array


def avg_pool(exclude_padding_from_average: Any, x: Array, pad: Array, **window: Any) -> Array:
    """Compute the mean of each window. Padding counts as zeros, or not at all if `exclude_padding_from_average`.

    Elements of the last window that are beyond the padding never count.
    """
    sums, pads = _pool(np.add, 0.0, x, pad, **window)
    inside = np.ones((1, 1, *x.shape[2:]), x.dtype)
    if not exclude_padding_from_average:
        inside = np.pad(inside, [(0, 0), (0, 0), *pads], constant_values=1)
        window = {**window, "pad_type": "valid"}
        counts, _ = _pool(np.add, 0.0, inside, np.zeros_like(pad), **window, counts=sums.shape[2:])
    else:
        counts, _ = _pool(np.add, 0.0, inside, pad, **window)
    return sums / counts


def l2_pool(x: Array, pad: Array, **window: Any) -> Array:
    """Compute the square root of the sum of squares in each window."""
    return np.sqrt(_pool(np.add, 0.0, np.square(x), pad, **window)[0])


def max_pool(x: Array, pad: Array, **window: Any) -> Array:
    """Compute the largest value in each window; padding does not count."""
    return _pool(np.maximum, -np.inf, x, pad, **window)[0]


def _pool(
    reduce: np.ufunc,
    empty: float,
    x: Array,
    pad: Array,
    kernel_sizes: Array,
    strides: Array,
    pad_type: str,
    ceil_mode: Any,
    counts: Sequence[int] | None = None,
) -> tuple[Array, list[tuple[int, int]]]:
    """Reduce each window by `reduce`; elements outside x are `empty`.

    `counts`, if given, is the number of windows along each dimension.

    Returns:
        the result, and the padding before and after each dimension.
    """
    kernel, steps = [int(size) for size in kernel_sizes], [int(stride) for stride in strides]
    ones = [1] * len(kernel)
    sizes = x.shape[2:]
    pads = padding(pad_type, sizes, kernel, steps, ones, list(pad))
    if counts is None:
        counts = [
            num_windows(size, length, stride, *both, bool(ceil_mode))
            for size, length, stride, both in zip(sizes, kernel, steps, pads, strict=True)
        ]
    room = [
        (before, max(after, (count - 1) * stride + length - size - before))
        for (before, after), count, stride, length, size in zip(pads, counts, steps, kernel, sizes, strict=True)
    ]
    padded = np.pad(x, [(0, 0), (0, 0), *room], constant_values=empty)
    out = np.full((*x.shape[:2], *counts), empty, x.dtype)
    for _, seen in taps(padded, kernel, steps, ones, counts):
        out = reduce(out, seen)
    return out, pads


FAMILY: Family = {"avg_pool": avg_pool, "l2_pool": l2_pool, "max_pool": max_pool}
