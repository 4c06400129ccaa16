"""Resize of dimensions whose sizes or scales are not known before the model runs: places are computed, in fp32."""

from dataclasses import dataclass

import numpy as np

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context
from triune.coreai.lowering.dims import along, as_scalar, dim_of, element, iota, take
from triune.coreai.lowering.resize_places import coordinates_of
from triune.coreai.lowering.unary import ceil, floor
from triune.coreai.lowering.values import axis, cast, constant, dtype_of, like, rank_of
from triune.graph.conversion.problems import Refusal


@dataclass(frozen=True, slots=True)
class Free:
    """How one dimension is resized.

    Attributes:
        axis: which.
        scales: the factors of all resized dimensions, where they are given.
        sizes: else their sizes.
        index: its place among these.
        scale: its factor, where it is known now.
    """

    axis: int
    scales: Value | None
    sizes: Value | None
    index: int
    scale: float | None


def resize_free(c: Context, x: Value, free: list[Free], mode: str) -> Value:
    """`x` resized along all of `free`.

    Raises:
        Refusal: what is not known exactly, or not done so.
    """
    if c.attributes.get("antialias", 0) or c.attributes.get("exclude_outside", 0) or mode not in ("nearest", "linear"):
        raise Refusal(f"mode '{mode}' of an image of no fixed size, or with antialias or exclude_outside; fix the size")
    if c.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refusal("an image of no fixed size is resized by keep_aspect_ratio_policy; fix it with --shape")
    for each in free:
        x = _resized(c, x, each, mode)
    return x


def _resized(c: Context, x: Value, each: Free, mode: str) -> Value:
    size = as_scalar(dim_of(x, each.axis))
    places, last = _places(c, size, each), ops.sub(size, axis(1))
    if mode == "nearest":
        return take(x, _within(_rounded(c, places), last), each.axis)
    base = floor(places)
    low = _within(cast(base, np.int32), last)
    high = _within(ops.broadcasting_add(cast(base, np.int32), axis(1)), last)
    ratio = along(cast(ops.sub(places, base), dtype_of(x)), each.axis, rank_of(x))
    rest = ops.broadcasting_sub(like(x, 1), ratio)
    one, other = take(x, low, each.axis), take(x, high, each.axis)
    return ops.add(ops.broadcasting_mul(one, rest), ops.broadcasting_mul(other, ratio))


def _places(c: Context, size: Value, each: Free) -> Value:
    """For each element of the result its place in the dimension."""
    own = cast(size, np.float32)
    if each.scales is not None:
        scale = constant(np.float32(each.scale)) if each.scale is not None else element(each.scales, each.index)
        length = ops.mul(own, cast(scale, np.float32))
        target = cast(floor(length), np.int32)
    else:
        target = element(each.sizes, each.index)
        length = cast(target, np.float32)
        scale = ops.divide(length, own)
    index = cast(iota(target), np.float32)
    half = constant(np.float32(0.5))
    halves = ops.broadcasting_sub(ops.broadcasting_divide(ops.broadcasting_add(index, half), scale), half)
    one = constant(np.float32(1))
    is_single = ops.equal(length, one)
    match mode := coordinates_of(c):
        case "half_pixel":
            return halves
        case "asymmetric":
            return ops.broadcasting_divide(index, scale)
        case "align_corners":
            # The length less 1 is 0 where there is but one element, which lies at 0.
            span = ops.where(is_single, one, ops.sub(length, one))
            return ops.broadcasting_divide(ops.broadcasting_mul(index, ops.sub(own, one)), span)
        case "pytorch_half_pixel":
            single = ops.broadcasting_sub(ops.broadcasting_mul(index, constant(np.float32(0))), half)
            return ops.broadcasting_where(is_single, single, halves)
        case "half_pixel_symmetric":
            rest = ops.sub(one, ops.divide(cast(target, np.float32), length))
            return ops.broadcasting_add(halves, ops.mul(ops.mul(own, half), rest))
        case _:
            raise Refusal(f"coordinate_transformation_mode '{mode}' of an image of no fixed size; fix it with --shape")


def _rounded(c: Context, places: Value) -> Value:
    half = constant(np.float32(0.5))
    match mode := c.attributes.get("nearest_mode", "round_prefer_floor"):
        case "round_prefer_floor":
            result = ceil(ops.broadcasting_sub(places, half))
        case "round_prefer_ceil":
            result = floor(ops.broadcasting_add(places, half))
        case "floor":
            result = floor(places)
        case "ceil":
            result = ceil(places)
        case _:
            raise Refusal(f"nearest_mode '{mode}'")
    return cast(result, np.int32)


def _within(indices: Value, last: Value) -> Value:
    return ops.broadcasting_minimum(ops.broadcasting_maximum(indices, axis(0)), last)
