"""Resize, crop and transform images."""

import math
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.interpreter.sampling import grid, resize, sample
from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array


def upsample_nearest_neighbor(x: Array, scale_factor_height: Any, scale_factor_width: Any) -> Array:
    """Resize the last two dimensions by a factor, with the nearest neighbour."""
    return resize(x, _scaled_sizes(x, scale_factor_height, scale_factor_width), "DEFAULT", "floor")


def resize_nearest_neighbor(x: Array, target_size_height: Any, target_size_width: Any) -> Array:
    """Resize the last two dimensions to a size, with the nearest neighbour."""
    return resize(x, [int(target_size_height), int(target_size_width)], "DEFAULT", "floor")


def upsample_bilinear(
    x: Array, scale_factor_height: Any, scale_factor_width: Any, align_corners: Any, half_pixel_centers: Any
) -> Array:
    """Resize the last two dimensions by a factor, with bilinear interpolation.

    If `half_pixel_centers` is not given, it is the opposite of `align_corners`.

    Raises:
        InvalidArgumentError: `align_corners` and `half_pixel_centers` are both true.
    """
    has_centers = not align_corners if half_pixel_centers is None else bool(half_pixel_centers)
    if align_corners and has_centers:
        raise InvalidArgumentError("align_corners and half_pixel_centers exclude each other")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if has_centers else "DEFAULT"
    return resize(x, _scaled_sizes(x, scale_factor_height, scale_factor_width), mode, "linear")


def resize_bilinear(x: Array, target_size_height: Any, target_size_width: Any, sampling_mode: str) -> Array:
    """Resize the last two dimensions to a size, with bilinear interpolation."""
    return resize(x, [int(target_size_height), int(target_size_width)], sampling_mode, "linear")


def resize_any(x: Array, shape: Array, resized_dims: Any, interpolation_mode: str, sampling_mode: str) -> Array:
    """Resize the last `resized_dims` dimensions to the last sizes in `shape`; a size of 0 keeps that of x.

    Raises:
        UnsupportedError: the interpolation mode is not known.
    """
    if interpolation_mode not in ("LINEAR", "NEAREST_NEIGHBOR"):
        raise UnsupportedError(f"there is no interpolation mode '{interpolation_mode}'")
    count = int(resized_dims)
    own = x.shape[x.ndim - count :]
    sizes = [int(size) or mine for size, mine in zip(shape[shape.size - count :], own, strict=True)]
    return resize(x, sizes, sampling_mode, "linear" if interpolation_mode == "LINEAR" else "closest")


def crop_resize(
    x: Array,
    roi: Array | None,
    boxes: Array | None,
    box_indices: Array | None,
    target_height: Any,
    target_width: Any,
    normalized_coordinates: Any,
    spatial_scale: Any,
    box_coordinate_mode: str,
    sampling_mode: str,
    pad_value: Any,
) -> Array:
    """Cut boxes out of images, and resize each to (target_height, target_width).

    Up to iOS 16 `roi` (N, 1, 4, 1, 1) has boxes that are cut out of each of B images: the result is (N, B, C, h, w).
    `roi` (N, 1, 5, 1, 1) has the index of the image before each box: (N, 1, C, h, w). From iOS 17 on there are `boxes`
    (N, 4), and the index of the image for each in `box_indices`: (N, C, h, w).

    Raises:
        InvalidArgumentError: there is no image with such an index, or no boxes are given.
    """
    target = int(target_height), int(target_width)

    def crops_of(image: int, box: Array) -> Array:
        if not 0 <= image < x.shape[0]:
            raise InvalidArgumentError(f"a box of image {image}; there are {x.shape[0]}")
        corners = _corners(box, box_coordinate_mode, bool(normalized_coordinates), x.shape[2], x.shape[3])
        return _crop(x[image], corners * float(spatial_scale), target, sampling_mode, float(pad_value))

    if boxes is not None:
        numbers = range(len(boxes)) if box_indices is None else box_indices
        return np.stack([crops_of(int(image), box) for image, box in zip(numbers, boxes, strict=True)])
    if roi is None:
        raise InvalidArgumentError("neither 'roi' nor 'boxes' is given")
    rows = roi.reshape(roi.shape[0], -1)
    if rows.shape[1] == 5:
        return np.stack([crops_of(int(row[0]), row[1:])[None] for row in rows])
    return np.stack([np.stack([crops_of(image, row) for image in range(x.shape[0])]) for row in rows])


def affine(
    x: Array,
    transform_matrix: Array,
    output_height: Any,
    output_width: Any,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Any,
    coordinates_mode: str,
    align_corners: Any,
) -> Array:
    """Sample each image at x' = a0 x + a1 y + a2, y' = b0 x + b1 y + b2, where x, y go from -1 to 1 over the output.

    `transform_matrix` has a row (a0, a1, a2, b0, b1, b2) for each image. `coordinates_mode` is
    the unit of x' and y': pixels, or fractions of the image's size.
    """
    across, down = np.linspace(-1, 1, int(output_width)), np.linspace(-1, 1, int(output_height))
    column, row = np.meshgrid(across, down)
    matrices = np.broadcast_to(transform_matrix.astype(np.float64), (x.shape[0], 6))
    coordinates = np.stack(
        [np.stack([a * column + b * row + c, d * column + e * row + f], -1) for a, b, c, d, e, f in matrices]
    )
    return resample(x, coordinates, sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners)


def resample(
    x: Array,
    coordinates: Array,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Any,
    coordinates_mode: str,
    align_corners: Any,
) -> Array:
    """Sample each image of x, (B, C, H, W), at the points (x, y) in `coordinates`, (B, h, w, 2).

    Raises:
        UnsupportedError: a mode is not known.
    """
    if sampling_mode.lower() not in ("bilinear", "nearest"):
        raise UnsupportedError(f"there is no sampling mode '{sampling_mode}'")
    is_linear = sampling_mode.lower() == "bilinear"
    images: list[Array] = []
    for image, points in zip(x, coordinates, strict=True):
        column, row = (
            _pixels(points[..., at].astype(np.float64), size, coordinates_mode, bool(align_corners))
            for at, size in ((0, x.shape[3]), (1, x.shape[2]))
        )
        images.append(sample(image, column, row, is_linear, padding_mode.lower(), float(padding_value)))
    return np.stack(images).astype(x.dtype)


def _scaled_sizes(x: Array, height: Any, width: Any) -> list[int]:
    return [math.floor(float(height) * x.shape[-2]), math.floor(float(width) * x.shape[-1])]


def _pixels(points: Array, size: int, mode: str, is_aligned: bool) -> Array:
    """Convert coordinates to pixels: the center of pixel i is at i."""
    match mode.lower():
        case "unnormalized":
            return points
        case "normalized_minus_one_to_one":
            unit = (points + 1) / 2
        case "normalized_zero_to_one":
            unit = points
        case _:
            raise UnsupportedError(f"there is no coordinates mode '{mode}'")
    return unit * (size - 1) if is_aligned else unit * size - 0.5


def _corners(box: Array, mode: str, is_normalized: bool, height: int, width: int) -> Array:
    """Convert a box to (top, left, bottom, right) in pixels."""
    values = box.astype(np.float64)
    match mode:
        case "CORNERS_HEIGHT_FIRST":
            corners = values
        case "CORNERS_WIDTH_FIRST":
            corners = values[[1, 0, 3, 2]]
        case "CENTER_SIZE_HEIGHT_FIRST" | "CENTER_SIZE_WIDTH_FIRST":
            order = [0, 1] if mode == "CENTER_SIZE_HEIGHT_FIRST" else [1, 0]
            center, half = values[:2][order], values[2:][order] / 2
            corners = np.concatenate([center - half, center + half])
        case _:
            raise UnsupportedError(f"there is no box coordinate mode '{mode}'")
    return corners * np.array([height - 1, width - 1] * 2) if is_normalized else corners


def _crop(image: Array, corners: Array, target: tuple[int, int], mode: str, pad_value: float) -> Array:
    """Cut a box out of an image and resize it; points outside the image get `pad_value`.

    If the bottom is above the top, or the right end left of the left one, the result is mirrored.
    """
    top, left, bottom, right = (float(each) for each in corners)
    row = _points_between(top, bottom, target[0], mode)[:, None] + np.zeros((1, target[1]))
    column = _points_between(left, right, target[1], mode)[None, :] + np.zeros((target[0], 1))
    pixels = sample(image, column, row, True, "border", 0.0)
    # Because of rounding errors, a point on the border may be slightly outside: allow this fraction of a pixel.
    slack = 1e-4
    inside = (row >= -slack) & (row <= image.shape[1] - 1 + slack)
    inside &= (column >= -slack) & (column <= image.shape[2] - 1 + slack)
    return np.where(inside, pixels, pad_value).astype(image.dtype)


def _points_between(start: float, end: float, count: int, mode: str) -> Array:
    """The positions of `count` sample points from `start` to `end`."""
    return start + np.copysign(1, end - start) * grid(abs(end - start) + 1, count, mode)


FAMILY: Family = {
    "affine": affine,
    "crop_resize": crop_resize,
    "resample": resample,
    "resize": resize_any,
    "resize_bilinear": resize_bilinear,
    "resize_nearest_neighbor": resize_nearest_neighbor,
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}
