"""Slice and Pad."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from triune.graph.axes import positive
from triune.metal.context import Context, Lowering
from triune.metal.library import Value, from_numpy, mx

_MODES = ("constant", "reflect", "edge", "wrap")


def _slice(c: Context) -> None:
    x = c.input(0)
    starts, ends = c.ints(1, "the starts of a Slice"), c.ints(2, "the ends of a Slice")
    axes = c.ints(3, "the axes of a Slice") if c.has(3) else range(len(starts))
    steps = c.ints(4, "the steps of a Slice") if c.has(4) else [1] * len(starts)
    places = [slice(None)] * x.ndim
    empty = list(x.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = positive(axis, x.ndim)
        found = range(*slice(start, end, step).indices(x.shape[axis]))
        places[axis] = slice(found.start, found.stop if found.stop >= 0 else None, step)
        empty[axis] = len(found)
    c.give(mx.zeros(empty, dtype=x.dtype) if 0 in empty else x[tuple(places)])


def _pad(c: Context) -> None:
    x, mode = c.input(0), str(c.attributes.get("mode", "constant"))
    pads = c.ints(1, "the padding of a Pad")
    axes = c.ints(3, "the axes of a Pad") if c.has(3) else range(x.ndim)
    widths = [(0, 0)] * x.ndim
    for index, axis in enumerate(axes):
        widths[positive(axis, x.ndim)] = pads[index], pads[index + len(axes)]
    # Negative padding removes elements.
    cuts = (slice(max(-low, 0), size - max(-high, 0)) for (low, high), size in zip(widths, x.shape, strict=True))
    x = x[tuple(cuts)]
    widths = [(max(low, 0), max(high, 0)) for low, high in widths]
    if mode == "constant":
        filler = c.input(2).reshape(()).astype(x.dtype) if c.has(2) else mx.array(0, dtype=x.dtype)
        c.give(mx.pad(x, widths, constant_values=filler))
    else:
        c.give(_repeated(x, widths, mode))


def _repeated(x: Value, widths: list[tuple[int, int]], mode: str) -> Value:
    """Pad with elements of `x`, along one axis after another."""
    if mode not in _MODES:
        raise ValueError(f"mode '{mode}' of a Pad; there are {', '.join(_MODES)}")
    pad: Callable[..., NDArray[np.int64]] = np.pad
    for axis, width in enumerate(widths):
        if any(width):
            places = pad(np.arange(x.shape[axis]), width, mode=mode)
            x = mx.take(x, from_numpy(places.astype(np.int32)), axis)
    return x


TABLE: Mapping[str, Lowering] = {"Slice": _slice, "Pad": _pad}
