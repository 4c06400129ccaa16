"""Resize along a dimension whose size or scale is known only at run time: where each element of the result comes from.

The formulas are those of `graph.conversion.resize`, which computes them at conversion time. The program computes them
in fp32 as ONNX Runtime does, so that mode "nearest" picks the same element of two that are equally near.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np

from triune.graph.conversion.context import NodeContext
from triune.graph.conversion.lowering.builder import Builder
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.resize import coordinate_mode
from triune.graph.conversion.scope import V


@dataclass(frozen=True)
class ResizedAxis(Generic[V]):
    """How one dimension is resized. Sizes and scales are scalars of fp32, `is_copied` is a scalar of bool.

    Attributes:
        axis: the dimension.
        own: its size.
        length: own * scale, not rounded.
        count: its size in the result, an integer.
        scale: the scale that the node gives, or the ratio of the sizes.
        under: the divisor that turns an index of the result into a coordinate in the dimension, index * over / under.
        over: the factor in index * over / under; None for 1.
        roi: the beginning and end of the region of interest, as fractions of the size; None if there is none.
        is_copied: whether the elements are copied unchanged; None if they are not, or if the formulas copy them.
    """

    axis: int
    own: V
    length: V
    count: V
    scale: V
    under: V
    over: V | None = None
    roi: tuple[V, V] | None = None
    is_copied: V | None = None


def coordinates(c: NodeContext[V], resized: ResizedAxis[V], index: V) -> V:
    """For each element of the result, its coordinate in the dimension: fp32 (count).

    Args:
        c: the Resize.
        resized: the dimension.
        index: 0, 1, ..., count - 1 as fp32 (count).

    Raises:
        Refusal: ONNX has no such coordinate_transformation_mode, or a region is to be resized and none is given.
    """
    b = c.builder
    match mode := coordinate_mode(c.attributes):
        case "asymmetric":
            found = _scaled(b, index, resized.over, resized.under)
        case "tf_half_pixel_for_nn":
            found = _scaled(b, b.add(index, 0.5), resized.over, resized.under)
        case "half_pixel":
            found = _centered(b, index, resized)
        case "pytorch_half_pixel":
            is_longer = b.cast(b.greater(resized.count, 1), np.float32)
            found = b.mul(_centered(b, index, resized), is_longer)
        case "half_pixel_symmetric":
            rest = b.sub(resized.length, resized.count)
            found = _centered(b, b.add(index, b.mul(rest, 0.5)), resized)
        case "align_corners":
            found = _scaled(b, index, b.sub(resized.own, 1), _steps_between(b, resized.count))
        case "tf_crop_and_resize":
            found = _in_region(b, index, resized)
        case _:
            raise Refusal(f"coordinate_transformation_mode '{mode}'")
    return found if resized.is_copied is None else b.where(resized.is_copied, index, found)


def clipped_indices(b: Builder[V], own: V, indices: V) -> V:
    """Clip fp32 indices to the range from 0 to own - 1, where `own` is the dimension's size, and cast them to int32."""
    return b.cast(b.minimum(b.maximum(indices, 0), b.sub(own, 1)), np.int32)


def near_weight(b: Builder[V], distance: V, a: float) -> V:
    """Keys's cubic convolution kernel (1981) for a distance from 0 to 1; `a` is ONNX's attribute `cubic_coeff_a`."""
    return _polynomial(b, distance, [a + 2, -(a + 3), 0, 1])


def far_weight(b: Builder[V], distance: V, a: float) -> V:
    """Keys's cubic convolution kernel, as in `near_weight`, for a distance from 1 to 2."""
    return _polynomial(b, distance, [a, -5 * a, 8 * a, -4 * a])


def _polynomial(b: Builder[V], x: V, coefficients: Sequence[float]) -> V:
    """The polynomial with these coefficients, the highest power first."""
    first, second, *others = coefficients
    total = b.add(b.mul(x, first), second)
    for each in others:
        total = b.add(b.mul(total, x), each)
    return total


def _scaled(b: Builder[V], index: V, over: V | None, under: V) -> V:
    return b.div(index if over is None else b.mul(index, over), under)


def _centered(b: Builder[V], index: V, resized: ResizedAxis[V]) -> V:
    """For each index of the result, the coordinate of the element's center: (index + 0.5) * over / under - 0.5, with
    `over` and `under` of `resized`.
    """
    return b.sub(_scaled(b, b.add(index, 0.5), resized.over, resized.under), 0.5)


def _steps_between(b: Builder[V], count: V) -> V:
    """max(count - 1, 0.5), the number of steps between the first and last of `count` elements.

    If there is only one, its index is 0, and any divisor but 0 will do.
    """
    return b.maximum(b.sub(count, 1), 0.5)


def _in_region(b: Builder[V], index: V, resized: ResizedAxis[V]) -> V:
    if resized.roi is None:
        raise Refusal("a region is resized, and none is given")
    begin, end = resized.roi
    last = b.sub(resized.own, 1)
    width = b.mul(b.sub(end, begin), last)
    # If the result has one element, it is the middle of the region.
    is_one = b.cast(b.equal(resized.count, 1), np.float32)
    middle = b.mul(b.mul(width, 0.5), is_one)
    return b.add(_scaled(b, index, width, _steps_between(b, resized.count)), b.add(b.mul(begin, last), middle))
