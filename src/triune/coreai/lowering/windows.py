"""Padding of images for convolutions and pools, and one-dimensional signals as images."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from triune.coreai.library import Value, ops
from triune.coreai.lowering.dims import Dim, vector
from triune.coreai.lowering.values import cast, constant, int32s, like, rank_of, shape_of, size_of, sizes
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.window import SAME, Window

MAX_SPATIAL: Final = 3


def spatial_of(x: Value, what: str) -> int:
    """The number of spatial dimensions, which are those after batch and channels.

    Raises:
        Refusal: there is none, or more than Core AI's operations have; `what` begins the message.
    """
    spatial = rank_of(x) - 2
    if not 1 <= spatial <= MAX_SPATIAL:
        raise Refusal(f"{what} over {spatial} dimensions; Core AI has 1 to {MAX_SPATIAL}; reshape to fewer")
    return spatial


def on_plane(x: Value) -> Value:
    """Reshape a signal (N, C, W), or the kernel for one, to an image (N, C, 1, W); return images unchanged."""
    return ops.expand_dims(x, int32s([2])) if rank_of(x) == MAX_SPATIAL else x


def off_plane(x: Value, spatial: int) -> Value:
    """Undo `on_plane`."""
    return ops.shrink_dims(x, int32s([2])) if spatial == 1 else x


def at_least_two(numbers: Sequence[int], fill: int) -> list[int]:
    """Add `fill` at the front of a list of one number, for the axis of size 1 that `on_plane` adds."""
    return [fill, *numbers] if len(numbers) == 1 else list(numbers)


def pad(x: Value, widths: Sequence[tuple[Dim, Dim]], value: float) -> Value:
    """Pad the last dimensions with `value`. `widths` has the numbers of elements before and after each."""
    flat = [each for pair in widths for each in pair]
    if not any(map(is_some, flat)):
        return x
    whole = [*[0] * (2 * (rank_of(x) - len(widths))), *flat]
    numbers = [each for each in whole if isinstance(each, int)]
    # If all widths of the padding are known, write them as one constant: Core AI infers the shape of the result only
    # then.
    amounts = sizes(numbers) if len(numbers) == len(whole) else cast(vector(whole), np.uint32)
    return ops.pad(x, amounts, like(x, value))


def is_some(width: Dim) -> bool:
    """Whether `width` may be other than 0."""
    return not isinstance(width, int) or width != 0


def widths_of(x: Value, window: Window) -> list[tuple[Dim, Dim]]:
    """The padding of a window before and after each spatial dimension."""
    return [_width(x, window, axis) for axis in range(len(window.kernel))]


def _width(x: Value, window: Window, axis: int) -> tuple[Dim, Dim]:
    known = window.padding(axis, shape_of(x)[2 + axis])
    if known is not None:
        return known
    size, stride = size_of(x, 2 + axis), window.strides[axis]
    # This is the formula of `Window.padding`, for a size that is known only at run time.
    places = _op(ops.divide, _op(ops.add, size, stride - 1), stride)
    reach = _op(ops.add, _op(ops.mul, _op(ops.sub, places, 1), stride), window.extent(axis))
    total = _op(ops.maximum, ops.sub(reach, size), 0)
    half = _op(ops.divide, total, 2)
    rest = ops.sub(total, half)
    return (half, rest) if window.auto_pad == SAME[0] else (rest, half)


def excess_of(x: Value, window: Window) -> list[tuple[Dim, Dim]]:
    """The number of elements by which the last windows exceed the padded image with `ceil_mode`, for each spatial
    dimension. `x` is not padded.
    """
    return [(0, _excess(x, window, axis)) for axis in range(len(window.kernel))]


def _excess(x: Value, window: Window, axis: int) -> Dim:
    known = shape_of(x)[2 + axis]
    if known is not None:
        begin, end = window.padding(axis, known) or (0, 0)
        reach = window.needed(axis, window.count(axis, known, is_ceil=True))
        return max(reach - known - begin - end, 0)
    if window.auto_pad in SAME:
        # SAME padding gives ceil(size / stride) windows, none of which reaches beyond the padded input.
        return 0
    begin, end = window.padding(axis, None) or (0, 0)
    stride, extent = window.strides[axis], window.extent(axis)
    size = size_of(x, 2 + axis)
    room = _op(ops.add, size, begin + end - extent)
    # `room` is the padded size minus the extent of a window. The last window has the index ceil(room / stride), or one
    # less if it would begin behind the image.
    last = _op(ops.divide, _op(ops.add, room, stride - 1), stride)
    is_behind = ops.greater(_op(ops.mul, last, stride), _op(ops.add, size, begin - 1))
    last = ops.sub(last, cast(is_behind, np.int32))
    reach = _op(ops.add, _op(ops.mul, last, stride), extent - begin - end)
    return _op(ops.maximum, ops.sub(reach, size), 0)


def _op(make: Callable[[Value, Value], Value], x: Value, number: int) -> Value:
    return make(x, constant(np.int32(number)))
