"""Resize of dimensions whose sizes or scales are not known before the model runs."""

from dataclasses import dataclass

import numpy as np

from triune.coreai.library import Value, ir, ops
from triune.coreai.lowering.context import Context
from triune.coreai.lowering.dims import Dim, as_scalar, dim_of, dims_of, element, iota, take, vector
from triune.coreai.lowering.unary import ceil, floor
from triune.coreai.lowering.values import axes, axis, cast, concat, constant, rank_of
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.resize import coordinates_of


@dataclass(frozen=True, slots=True)
class Free:
    """How one dimension is resized.

    Attributes:
        axis: which.
        scales: the factors of all resized dimensions, where they are given.
        sizes: else their sizes.
        index: its place among these.
    """

    axis: int
    scales: Value | None
    sizes: Value | None
    index: int


@dataclass(frozen=True, slots=True)
class _Line:
    """Where the elements of the result lie: at (index + 0.5 - offset) / scale - 0.5.

    Attributes:
        target: how many there are, a scalar of int32.
        scale: a scalar of fp32.
        offset: likewise.
    """

    target: Value
    scale: Value
    offset: Value


def resize_free(c: Context, x: Value, free: list[Free], mode: str) -> Value:
    """`x` resized along all of `free`.

    Raises:
        Refusal: what is not known exactly, or not done so.
    """
    if c.attributes.get("antialias", 0) or c.attributes.get("exclude_outside", 0) or mode not in ("nearest", "linear"):
        raise Refusal(f"mode '{mode}' of an image of no fixed size, or with antialias or exclude_outside; fix the size")
    if c.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refusal("an image of no fixed size is resized by keep_aspect_ratio_policy; fix it with --shape")
    # Of all dimensions at once: Apple's interpreter (1.0.0b3) does not always know the shape of what was gathered.
    sizes = {each.axis: as_scalar(dim_of(x, each.axis)) for each in free}
    lines = {each.axis: _line(c, sizes[each.axis], each) for each in free}
    if mode == "linear":
        return _interpolated(x, lines)
    for place, line in lines.items():
        x = take(x, _picked(c, line, ops.broadcasting_sub(sizes[place], axis(1))), place)
    return x


def _line(c: Context, size: Value, each: Free) -> _Line:
    own = cast(size, np.float32)
    one, half, zero = (constant(np.float32(number)) for number in (1, 0.5, 0))
    if each.scales is not None:
        scale = cast(element(each.scales, each.index), np.float32)
        length = ops.broadcasting_mul(own, scale)
        target = cast(floor(length), np.int32)
    else:
        target = element(each.sizes, each.index)
        length = cast(target, np.float32)
        scale = ops.broadcasting_divide(length, own)
    match mode := coordinates_of(c.attributes):
        case "half_pixel":
            return _Line(target, scale, zero)
        case "asymmetric":
            return _Line(target, scale, ops.broadcasting_mul(half, ops.broadcasting_sub(one, scale)))
        case "align_corners":
            # Of one element any scale gives its place, and clamping that of an image of one element.
            span = ops.broadcasting_maximum(ops.broadcasting_sub(own, one), half)
            between = ops.broadcasting_divide(ops.broadcasting_sub(length, one), span)
            scale = ops.broadcasting_maximum(between, constant(np.float32(2**-20)))
            return _Line(target, scale, ops.broadcasting_mul(half, ops.broadcasting_sub(one, scale)))
        case "pytorch_half_pixel":
            return _Line(target, scale, ops.broadcasting_mul(half, cast(ops.equal(length, one), np.float32)))
        case "half_pixel_symmetric":
            return _Line(
                target, scale, ops.broadcasting_mul(half, ops.broadcasting_sub(cast(target, np.float32), length))
            )
        case _:
            raise Refusal(f"coordinate_transformation_mode '{mode}' of an image of no fixed size; fix it with --shape")


def _interpolated(x: Value, lines: dict[int, _Line]) -> Value:
    one, zero = constant(np.ones(1, np.float32)), constant(np.zeros(1, np.float32))
    targets: list[Dim] = dims_of(x)
    scales, offsets = [one] * rank_of(x), [zero] * rank_of(x)
    for place, line in lines.items():
        targets[place] = line.target
        scales[place], offsets[place] = (ops.reshape(each, axes([1])) for each in (line.scale, line.offset))
    mode = ir.Attribute.parse("#coreai.interpolation_mode<linear>")
    return ops.interpolate(x, vector(targets), concat(scales, 0), concat(offsets, 0), mode)


def _places(c: Context, line: _Line) -> Value:
    """As a line says, in as few operations: of longer ones Apple's interpreter (1.0.0b3) loses operands."""
    index = cast(iota(line.target), np.float32)
    half = constant(np.float32(0.5))
    match coordinates_of(c.attributes):
        case "asymmetric":
            return ops.broadcasting_divide(index, line.scale)
        case "half_pixel":
            return ops.broadcasting_sub(ops.broadcasting_divide(ops.broadcasting_add(index, half), line.scale), half)
        case mode:
            raise Refusal(f"coordinate_transformation_mode '{mode}' of an image of no fixed size; fix it with --shape")


def _picked(c: Context, line: _Line, last: Value) -> Value:
    """The elements at the places that are nearest."""
    half = constant(np.float32(0.5))
    places = _places(c, line)
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
    indices = ops.broadcasting_maximum(cast(result, np.int32), axis(0))
    return ops.broadcasting_minimum(indices, last)
