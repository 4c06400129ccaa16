"""The sample points of resized images, and interpolation at these points."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreml.mil import Array


def grid(size: float, count: int, mode: str) -> Array:
    """The positions of `count` sample points in a row of `size` pixels; pixel i is at i.

    The formulas are those of `resize_bilinear` in MIL's reference.

    Raises:
        UnsupportedError: the mode is not known.
    """
    at = np.arange(count, dtype=np.float64)
    match mode:
        case "STRICT_ALIGN_CORNERS":
            points = at * ((size - 1) / (count - 1) if count > 1 else 0)
        case "ALIGN_CORNERS":
            points = at * (size - 1) / (count - 1) if count > 1 else (at + size - 1) / 2
        case "DEFAULT":
            points = at * (size / count)
        case "OFFSET_CORNERS":
            points = (at + 0.5) * (max(1, size - 1) / count)
        case "UNALIGN_CORNERS":
            points = (at + 0.5) * (size / count) - 0.5
        case _:
            raise UnsupportedError(f"there is no sampling mode '{mode}'")
    return np.clip(points, 0, size - 1)


def nearest(x: Array, axis: int, points: Array, is_floor: bool) -> Array:
    """Take x along an axis at the pixel before each point if `is_floor`; else at the pixel nearest to it.

    For a point halfway between two pixels, that is the pixel before it.
    """
    # Because of a rounding error, a point that should be at a pixel may be slightly before it: move it by 1e-6.
    places = np.floor(points + 1e-6) if is_floor else np.ceil(points - 0.5 - 1e-6)
    return np.take(x, np.clip(places.astype(np.int64), 0, x.shape[axis] - 1), axis)


def linear(x: Array, axis: int, points: Array) -> Array:
    """Interpolate x linearly along an axis, at points between pixels."""
    low = np.clip(np.floor(points).astype(np.int64), 0, x.shape[axis] - 1)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    weight = (points - low).astype(np.float32).reshape(-1, *(1,) * (x.ndim - 1 - axis % x.ndim))
    return np.take(x, low, axis) * (1 - weight) + np.take(x, high, axis) * weight


def resize(x: Array, sizes: Sequence[int], mode: str, method: Literal["linear", "closest", "floor"]) -> Array:
    """Resize the last dimensions of x to `sizes`.

    Args:
        x: the image.
        sizes: the sizes of the last dimensions in the result.
        mode: where the sample points are: see `grid`.
        method: interpolate linearly between pixels, or take the nearest pixel, or the one before the point.
    """
    result = x
    for axis, size in zip(range(x.ndim - len(sizes), x.ndim), sizes, strict=True):
        points = grid(x.shape[axis], size, mode)
        result = (
            linear(result, axis, points) if method == "linear" else nearest(result, axis, points, method == "floor")
        )
    return result.astype(x.dtype)


def sample(image: Array, x: Array, y: Array, is_linear: bool, padding_mode: str, padding_value: float) -> Array:
    """Sample an image (channels, height, width) at points (x, y) of any shape; the result is (channels, *shape).

    Args:
        image: the pixels.
        x: the columns of the points; pixel i is at i.
        y: the rows.
        is_linear: interpolate linearly between pixels; else take the nearest, of two equally near ones the even one.
        padding_mode: "constant", "border", "reflection" (at the center of the last pixel), "symmetric" (at its edge).
        padding_value: the value of pixels outside the image for "constant".

    Raises:
        UnsupportedError: the padding mode is not known.
    """
    x, y = _inside(x, image.shape[2], padding_mode), _inside(y, image.shape[1], padding_mode)
    if not is_linear:
        return _read(image, np.rint(x), np.rint(y), padding_mode, padding_value)
    left, top = np.floor(x), np.floor(y)
    right, low = (x - left).astype(np.float32), (y - top).astype(np.float32)
    corners = [_read(image, left + dx, top + dy, padding_mode, padding_value) for dy in (0, 1) for dx in (0, 1)]
    upper = corners[0] * (1 - right) + corners[1] * right
    lower = corners[2] * (1 - right) + corners[3] * right
    return upper * (1 - low) + lower * low


def _inside(points: Array, size: int, mode: str) -> Array:
    """The positions `points` along a row of `size` pixels, those outside of it moved into it as the padding mode says;
    "constant" leaves them outside.
    """
    match mode:
        case "constant":
            return points
        case "border":
            return np.clip(points, 0, size - 1)
        case "reflection":
            return _reflect(points, 0, size - 1)
        case "symmetric":
            return np.clip(_reflect(points, -0.5, size - 0.5), 0, size - 1)
        case _:
            raise UnsupportedError(f"there is no padding mode '{mode}'")


def _reflect(points: Array, low: float, high: float) -> Array:
    span = high - low
    if span <= 0:
        return np.zeros_like(points)
    offset = np.mod(np.abs(points - low), 2 * span)
    return low + np.where(offset > span, 2 * span - offset, offset)


def _read(image: Array, x: Array, y: Array, mode: str, value: float) -> Array:
    height, width = image.shape[1:]
    column, row = np.clip(x, 0, width - 1).astype(np.int64), np.clip(y, 0, height - 1).astype(np.int64)
    pixels = image[:, row, column]
    if mode != "constant":
        return pixels
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return np.where(inside, pixels, np.asarray(value, pixels.dtype))
