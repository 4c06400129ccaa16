"""Resize: where in a dimension of known size the elements of the result lie."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triune.coreai.lowering.context import Context
from triune.graph.conversion.problems import Refusal

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axis:
    """How one dimension is resized.

    Attributes:
        axis: which.
        size: how long it is.
        target: how long it becomes.
        scale: how much longer.
        begin: where the region of interest begins, of the length.
        end: where it ends.
    """

    axis: int
    size: int
    target: int
    scale: float
    begin: float = 0.0
    end: float = 1.0


def coordinates_of(c: Context) -> str:
    """The node's coordinate_transformation_mode."""
    return str(c.attributes.get("coordinate_transformation_mode", "half_pixel"))


def is_cropped(c: Context) -> bool:
    """Is a region of the image resized?"""
    return coordinates_of(c) == "tf_crop_and_resize"


def places_of(c: Context, each: Axis) -> Floats:
    """For each element of the result its place in the dimension."""
    mode = coordinates_of(c)
    index = np.arange(each.target, dtype=np.float64)
    length = each.scale * each.size
    halves = (index + 0.5) / each.scale - 0.5
    match mode:
        case "half_pixel":
            return halves
        case "asymmetric":
            return index / each.scale
        case "align_corners":
            return index * 0 if length == 1 else index * (each.size - 1) / (length - 1)
        case "pytorch_half_pixel":
            return index * 0 - 0.5 if length == 1 else halves
        case "half_pixel_symmetric":
            return each.size / 2 * (1 - each.target / length) + halves
        case "tf_crop_and_resize":
            width = (each.end - each.begin) * (each.size - 1)
            inner = index * 0 + width / 2 if length == 1 else index * width / (length - 1)
            return inner + each.begin * (each.size - 1)
        case _:
            raise Refusal(f"coordinate_transformation_mode '{mode}'")


def picked_of(c: Context, places: Floats) -> NDArray[np.int32]:
    """The elements at the places that are nearest."""
    mode = c.attributes.get("nearest_mode", "round_prefer_floor")
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


def cubic(x: Floats, a: float) -> Floats:
    """Keys' kernel (1981)."""
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
