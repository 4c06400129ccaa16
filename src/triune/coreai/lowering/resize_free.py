"""Resize of dimensions whose sizes or scales are known only at run time."""

from collections.abc import Sequence

import numpy as np

from triune.coreai.library import Value, ir, ops
from triune.coreai.lowering.context import Context
from triune.coreai.lowering.dims import Dim, along, as_scalar, dim_of, dims_of, iota, take, vector
from triune.coreai.lowering.resize_lines import Line, Resized, number, places_of, resized
from triune.coreai.lowering.unary import ceil
from triune.coreai.lowering.values import cast, concat, constant, dtype_of, int32, int32s, like, rank_of
from triune.graph.conversion.lowering.resize import nearest, product_along
from triune.graph.conversion.lowering.resize_free import clipped_indices, far_weight, near_weight
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.resize import coordinate_mode, is_cropped


def resize_free(c: Context, x: Value, axes: Sequence[int], is_changed: Sequence[bool], mode: str) -> Value:
    """Resize `x` along those of the dimensions `axes` for which `is_changed` is true.

    Raises:
        Refusal: an attribute has a value that ONNX does not define.
    """
    changed = resized(c, x, axes, is_changed)
    if mode == "linear" and not c.attributes.get("antialias", 0) and not is_cropped(c.attributes):
        # For coordinates outside the image, Core AI takes the element at the border, as ONNX does.
        return _interpolate(c, x, changed)
    for each in changed:
        line, found = each.numbers, places_of(c, each)
        x = (
            take(x, clipped_indices(c.builder, line.own, nearest(c, found)), line.axis)
            if mode == "nearest"
            else _weighted_sum(c, x, each, found, mode)
        )
        x = _extrapolated(c, x, line, found)
    return x


def _interpolate(c: Context, x: Value, changed: Sequence[Resized]) -> Value:
    """Write Core AI's interpolate: linear, at the coordinate (index + 0.5 - offset) / scale - 0.5 of each dimension."""
    one, zero = constant(np.ones(1, np.float32)), constant(np.zeros(1, np.float32))
    targets: list[Dim] = dims_of(x)
    scales, offsets = [one] * rank_of(x), [zero] * rank_of(x)
    for each in changed:
        line = each.numbers
        targets[line.axis] = each.target
        scale, offset = _scale_and_offset(c, line)
        if line.is_copied is not None:
            scale = ops.broadcasting_where(line.is_copied, number(1), scale)
            offset = ops.broadcasting_where(line.is_copied, number(0), offset)
        scales[line.axis], offsets[line.axis] = (ops.reshape(given, int32s([1])) for given in (scale, offset))
    mode = ir.Attribute.parse("#coreai.interpolation_mode<linear>")
    return ops.interpolate(x, vector(targets), concat(scales, 0), concat(offsets, 0), mode)


def _scale_and_offset(c: Context, line: Line) -> tuple[Value, Value]:
    """The scale and offset with which Core AI's interpolate (see `_interpolate`) reads the coordinates of the node's
    coordinate_transformation_mode.
    """
    one, half = number(1), number(0.5)
    scale = line.scale
    match mode := coordinate_mode(c.attributes):
        case "half_pixel":
            return scale, number(0)
        case "asymmetric":
            return scale, ops.broadcasting_mul(half, ops.broadcasting_sub(one, scale))
        case "align_corners":
            # For an image of one element, divide by 1/2 instead of 0: every coordinate is clamped to the element,
            # whatever the scale is.
            span = ops.broadcasting_maximum(ops.broadcasting_sub(line.own, one), half)
            between = ops.broadcasting_divide(ops.broadcasting_sub(line.count, one), span)
            scale = ops.broadcasting_maximum(between, number(2**-20))
            return scale, ops.broadcasting_mul(half, ops.broadcasting_sub(one, scale))
        case "pytorch_half_pixel":
            is_one = cast(ops.broadcasting_greater(line.count, one), np.float32)
            return scale, ops.broadcasting_mul(half, ops.broadcasting_sub(one, is_one))
        case "half_pixel_symmetric":
            rest = ops.broadcasting_sub(line.count, line.length)
            return scale, ops.broadcasting_mul(half, rest)
        case _:
            raise Refusal(f"coordinate_transformation_mode '{mode}'")


def _last_index(line: Line) -> Value:
    return ops.broadcasting_sub(line.own, number(1))


def _weighted_sum(c: Context, x: Value, each: Resized, places: Value, mode: str) -> Value:
    """Resize `x` along one dimension by a product with a matrix of weights.

    The matrix has the weight of each element of `x` for each element of the result, whose coordinates are `places`.
    """
    is_antialiased = bool(c.attributes.get("antialias", 0))
    is_excluded = bool(c.attributes.get("exclude_outside", 0))
    line, size = each.numbers, as_scalar(dim_of(x, each.numbers.axis))
    if is_excluded:
        cells = cast(iota(size), np.float32)
    else:
        # Add as many elements beyond the border as the filter may reach. They equal the element at the border.
        reach, more = number(2), int32(4)
        if is_antialiased:
            reach = _filter_radius(line.scale, mode)
            more = ops.mul(cast(_filter_radius(each.shapes.scale, mode), np.int32), int32(2))
        cells = ops.broadcasting_sub(cast(iota(ops.add(size, more)), np.float32), reach)
        x = take(x, clipped_indices(c.builder, line.own, cells), line.axis)
    distance = ops.abs_(ops.broadcasting_sub(along(places, 1, 2), along(cells, 0, 2)))
    if is_antialiased:
        distance = ops.broadcasting_mul(distance, _filter_scale(line.scale))
    weights = _linear_weight(distance) if mode == "linear" else _cubic_weight(c, distance)
    if is_excluded or is_antialiased:
        weights = ops.broadcasting_divide(weights, ops.reduce_sum(weights, int32s([0])))
    return product_along(c.builder, x, cast(weights, dtype_of(x)), line.axis)


def _filter_scale(scale: Value) -> Value:
    """min(scale, 1): the inverse of the factor by which antialiasing widens the filter."""
    return ops.broadcasting_minimum(scale, number(1))


def _filter_radius(scale: Value, mode: str) -> Value:
    """The radius of the antialiasing filter, in elements of the tensor that is resized."""
    return ceil(ops.broadcasting_divide(number(1 if mode == "linear" else 2), _filter_scale(scale)))


def _linear_weight(distance: Value) -> Value:
    """The weight in linear interpolation: max(1 - distance, 0)."""
    return ops.broadcasting_maximum(ops.broadcasting_sub(number(1), distance), number(0))


def _cubic_weight(c: Context, x: Value) -> Value:
    """The weight in cubic interpolation at distance `x`."""
    a = float(c.attributes.get("cubic_coeff_a", -0.75))
    near, far = near_weight(c.builder, x, a), far_weight(c.builder, x, a)
    beyond = ops.broadcasting_where(ops.broadcasting_greater(number(2), x), far, number(0))
    return ops.broadcasting_where(ops.broadcasting_greater(x, number(1)), beyond, near)


def _extrapolated(c: Context, x: Value, line: Line, places: Value) -> Value:
    """Replace elements whose coordinates are outside the image by `extrapolation_value`."""
    if not is_cropped(c.attributes):
        return x
    is_outside = ops.broadcasting_or(
        ops.broadcasting_greater(number(0), places), ops.broadcasting_greater(places, _last_index(line))
    )
    value = like(x, c.attributes.get("extrapolation_value", 0.0))
    return ops.broadcasting_where(along(is_outside, line.axis, rank_of(x)), value, x)
