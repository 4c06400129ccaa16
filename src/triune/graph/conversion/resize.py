"""Resize along an axis of known size: source coordinates of the result's elements, and interpolation weights.

The formulas are those of ONNX's standard (operator Resize). They are computed in fp32, as in ONNX Runtime, because the
rounding of a scale such as 1/3 may decide which of two elements is the nearest. `length_resized` is the length of the
result, an integer, as in the standard's text and ONNX Runtime.
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
    """How one axis is resized.

    Attributes:
        axis: the axis.
        size: its length before; 0 if unknown.
        target: its length after.
        scale: the factor; target is floor(scale * size) unless sizes are given.
        begin: the begin of the region of interest, as a fraction of the length.
        end: the end of the region of interest, likewise.
    """

    axis: int
    size: int
    target: int
    scale: float
    begin: float = 0.0
    end: float = 1.0


def coordinates_of(attributes: Mapping[str, Any]) -> str:
    """The node's coordinate_transformation_mode."""
    return str(attributes.get("coordinate_transformation_mode", "half_pixel"))


def is_cropped(attributes: Mapping[str, Any]) -> bool:
    """Whether a region of interest is resized (tf_crop_and_resize)."""
    return coordinates_of(attributes) == "tf_crop_and_resize"


def changed_of(
    attributes: Mapping[str, Any],
    axes: Sequence[int],
    lengths: Sequence[int],
    scales: NDArray[Any] | None,
    sizes: NDArray[Any] | None,
    roi: NDArray[Any] | None,
) -> list[Axis]:
    """How the axes that change are resized. `roi` is the region of interest for tf_crop_and_resize.

    As in ONNX Runtime, an image is copied if all sizes stay, even by scales such as 1.1. An axis is copied if its
    scale is 1, or if its size stays and the image is antialiased, even if a region of it should be cropped.

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


def places_of(attributes: Mapping[str, Any], each: Axis) -> Floats:
    """The source coordinate of each element of the result along the axis."""
    return _places(coordinates_of(attributes), each).astype(np.float64)


def _places(mode: str, each: Axis) -> NDArray[np.float32]:
    index, scale = np.arange(each.target, dtype=np.float32), np.float32(each.scale)
    length = float(each.target)
    halves = (index + np.float32(0.5)) / scale - np.float32(0.5)
    match mode:
        case "half_pixel":
            return halves
        case "asymmetric":
            return index / scale
        case "align_corners":
            return index * 0 if length == 1 else index * (each.size - 1) / (length - 1)
        case "pytorch_half_pixel":
            # A single element has coordinate 0 in ONNX's text and ONNX Runtime, but -0.5 in ONNX's reference evaluator.
            return index * 0 if each.target <= 1 else halves
        case "half_pixel_symmetric":
            # ONNX Runtime computes the rest of this mode in fp64.
            exact = (index.astype(np.float64) + 0.5) / float(scale) - 0.5
            offset = np.float32(each.size / 2) * (1 - np.float32(each.target) / (scale * np.float32(each.size)))
            return (offset + exact).astype(np.float32)
        case "tf_crop_and_resize":
            # The order of operations is ONNX Runtime's: rounding decides whether the last element lies outside.
            begin, end, last = np.float32(each.begin), np.float32(each.end), np.float32(each.size - 1)
            if length <= 1:
                return index * 0 + np.float32(0.5 * float(begin + end) * float(last))
            return begin * last + index * (end - begin) * last / np.float32(length - 1)
        case _:
            raise Refusal(f"coordinate_transformation_mode '{mode}'")


def picked_of(attributes: Mapping[str, Any], places: Floats) -> NDArray[np.int32]:
    """The index of the element nearest to each coordinate, by the node's nearest_mode."""
    mode = attributes.get("nearest_mode", "round_prefer_floor")
    match mode:
        case "round_prefer_floor":
            result = np.ceil(places - 0.5)
        case "round_prefer_ceil":
            result = np.floor(places + 0.5)
        case "floor":
            result = np.floor(places)
        case "ceil":
            result = np.ceil(places)
        case _:
            raise Refusal(f"nearest_mode '{mode}'")
    return result.astype(np.int32)


def matrix_of(attributes: Mapping[str, Any], each: Axis, places: Floats, mode: str) -> Floats:
    """The interpolation matrix: for each element of the result the weights of all elements along the axis."""
    base = np.ceil(places).astype(np.int64) - 1
    ratio = places - base
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
    """Keys's cubic convolution kernel (1981)."""
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
