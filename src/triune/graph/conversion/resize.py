"""Resize along an axis of known size: the source coordinate of each element of the result, and interpolation weights.

The formulas are those of ONNX's specification of Resize. They are computed in fp32, as in ONNX Runtime, because the
rounding of a scale such as 1/3 may decide which of two elements is the nearest. As in the specification and ONNX
Runtime, `length_resized` is the length of the result, an integer, not scale * length.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.graph.conversion.problems import Refusal

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axis:
    """How an axis is resized.

    Attributes:
        axis: the index of the axis.
        size: the length before; 0 if it is not known.
        target: the length after.
        scale: the factor. If the node has scales, target is floor(scale * size).
        begin: the begin of the region of interest, as a fraction of the length before.
        end: the end of the region of interest, as a fraction of the length before.
    """

    axis: int
    size: int
    target: int
    scale: float
    begin: float = 0.0
    end: float = 1.0


def coordinate_mode(attributes: Mapping[str, Any]) -> str:
    """The node's coordinate_transformation_mode."""
    return str(attributes.get("coordinate_transformation_mode", "half_pixel"))


def is_cropped(attributes: Mapping[str, Any]) -> bool:
    """Whether only a region of interest is resized (mode tf_crop_and_resize)."""
    return coordinate_mode(attributes) == "tf_crop_and_resize"


def resized_axes(
    attributes: Mapping[str, Any],
    axes: Sequence[int],
    lengths: Sequence[int],
    scales: NDArray[Any] | None,
    sizes: NDArray[Any] | None,
    roi: NDArray[Any] | None,
) -> list[Axis]:
    """Find the axes that are resized, and how. `roi` is the region of interest for tf_crop_and_resize.

    As in ONNX Runtime, no axis is resized if all sizes stay the same, even if scales are not 1 (5 * 1.1 is rounded down
    to 5). An axis of scale 1 is not resized, even if a region of it should be cropped, and with `antialias` neither is
    one whose size stays the same.

    Raises:
        Refusal: neither scales nor sizes are given.
    """
    if sizes is not None and sizes.size:
        factors = [int(size) / length for size, length in zip(sizes, lengths, strict=True)]
        targets = [int(size) for size in sizes]
        policy = attributes.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(factors)
            targets = [math.floor(factor * length + 0.5) for length in lengths]
    elif scales is not None and scales.size:
        factors = [float(each) for each in scales]
        targets = [
            math.floor(np.float32(length) * np.float32(factor)) for length, factor in zip(lengths, factors, strict=True)
        ]
    else:
        raise Refusal("neither scales nor sizes are given")
    stays = [
        scale == 1 or (size > 0 and size == target)
        for scale, size, target in zip(factors, lengths, targets, strict=True)
    ]
    if all(stays):
        return []
    regions = [(0.0, 1.0)] * len(axes) if roi is None else list(zip(roi[: len(axes)], roi[len(axes) :], strict=True))
    is_antialiased = bool(attributes.get("antialias", 0))
    found: list[Axis] = []
    for index, (axis, size, target, scale) in enumerate(zip(axes, lengths, targets, factors, strict=True)):
        if scale == 1 or (is_antialiased and stays[index]):
            continue
        found.append(Axis(axis, size, target, scale, *map(float, regions[index])))
    return found


def source_coordinates(attributes: Mapping[str, Any], each: Axis) -> Floats:
    """The source coordinate of each element of the result along the axis."""
    return _coordinates(coordinate_mode(attributes), each).astype(np.float64)


def _coordinates(mode: str, each: Axis) -> NDArray[np.float32]:
    index, scale = np.arange(each.target, dtype=np.float32), np.float32(each.scale)
    length = float(each.target)
    half_pixel = (index + np.float32(0.5)) / scale - np.float32(0.5)
    match mode:
        case "half_pixel":
            return half_pixel
        case "asymmetric":
            return index / scale
        case "tf_half_pixel_for_nn":
            # This mode exists only in operator sets 11 and 12 of ONNX.
            return (index + np.float32(0.5)) / scale
        case "align_corners":
            return index * 0 if length == 1 else index * (each.size - 1) / (length - 1)
        case "pytorch_half_pixel":
            # A single element has coordinate 0 in ONNX's specification and ONNX Runtime, -0.5 in ONNX's reference
            # evaluator.
            return index * 0 if each.target <= 1 else half_pixel
        case "half_pixel_symmetric":
            # Compute the coordinate without the offset in fp64, and add the offset to it, as ONNX Runtime does.
            exact = (index.astype(np.float64) + 0.5) / float(scale) - 0.5
            offset = np.float32(each.size / 2) * (1 - np.float32(each.target) / (scale * np.float32(each.size)))
            return (offset + exact).astype(np.float32)
        case "tf_crop_and_resize":
            # The operations are in ONNX Runtime's order, since rounding decides whether the last element is outside the
            # region.
            begin, end, last = np.float32(each.begin), np.float32(each.end), np.float32(each.size - 1)
            if length <= 1:
                return index * 0 + np.float32(0.5 * float(begin + end) * float(last))
            return begin * last + index * (end - begin) * last / np.float32(length - 1)
        case _:
            raise Refusal(f"coordinate_transformation_mode '{mode}'")


def nearest_indices(attributes: Mapping[str, Any], coordinates: Floats) -> NDArray[np.int32]:
    """The index of the element nearest to each coordinate, by the node's nearest_mode."""
    mode = attributes.get("nearest_mode", "round_prefer_floor")
    match mode:
        case "round_prefer_floor":
            result = np.ceil(coordinates - 0.5)
        case "round_prefer_ceil":
            result = np.floor(coordinates + 0.5)
        case "floor":
            result = np.floor(coordinates)
        case "ceil":
            result = np.ceil(coordinates)
        case _:
            raise Refusal(f"nearest_mode '{mode}'")
    return result.astype(np.int32)


def interpolation_matrix(attributes: Mapping[str, Any], each: Axis, coordinates: Floats, mode: str) -> Floats:
    """The interpolation matrix (target, size): for each element of the result, the weights of all elements along the
    axis.
    """
    base = np.ceil(coordinates).astype(np.int64) - 1
    ratio = coordinates - base
    scale = min(each.scale, 1.0) if attributes.get("antialias", 0) else 1.0
    reach = 1 if mode == "linear" else 2
    start = math.floor(-reach / scale) + 1
    offsets = np.arange(start, 2 - start)
    distance = np.abs((offsets[None, :] - ratio[:, None]) * scale)
    if mode == "linear":
        weights = np.clip(1 - distance, 0, 1)
    elif mode == "cubic":
        weights = _cubic(distance, float(attributes.get("cubic_coeff_a", -0.75)))
    else:
        raise Refusal(f"mode '{mode}'")
    index = base[:, None] + offsets[None, :]
    if attributes.get("exclude_outside", 0):
        weights = np.where((index >= 0) & (index < each.size), weights, 0)
    if attributes.get("exclude_outside", 0) or scale < 1:
        weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((each.target, each.size))
    np.add.at(matrix, (np.arange(each.target)[:, None], index.clip(0, each.size - 1)), weights)
    return matrix


def _cubic(x: Floats, a: float) -> Floats:
    """The weight of an element at distance `x`, by Keys's cubic convolution kernel (1981)."""
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
