"""Lowering of Resize: to MIL's operations if they agree with ONNX, else by matrix products or gathers."""

import numpy as np

from triune.coreml.lowering.context import (
    Context,
    Lowering,
    Refusal,
    dtype_of,
    has_static_shape,
    is_float,
    through_int,
)
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.coreml.lowering.resize_free import SAMPLING, resize_free
from triune.graph.axes import positive
from triune.graph.conversion.lowering.resize import extrapolated, mode_of, product_along
from triune.graph.conversion.resize import (
    Axis,
    interpolation_matrix,
    is_cropped,
    nearest_indices,
    resized_axes,
    source_coordinates,
)


def _resize(c: Context) -> None:
    x = c.input(0)
    mode = mode_of(c)
    places = [positive(each, x.rank) for each in c.attributes.get("axes", range(x.rank))]
    axes = _resized_axes(c, x, places)
    if axes is None or any(each.size == 0 for each in axes):
        repeated = _by_integer_factors(c, x, axes, mode) if axes else None
        c.give(resize_free(c, x, places, mode) if repeated is None else repeated)
    elif mode == "nearest":
        c.give(_nearest(c, x, axes))
    else:
        c.give(_native_linear(c, x, axes) or _interpolate(c, x, axes, mode))


def _resized_axes(c: Context, x: Var, places: list[int]) -> list[Axis] | None:
    """Describe the dimensions whose size changes; None if that depends on scales or sizes known only at run time.

    `Axis.size` is 0 where the size of `x` is unknown.
    """
    scales, sizes = c.constant(2), c.constant(3)
    lengths = [int(x.shape[axis]) if is_fixed(x.shape[axis]) else 0 for axis in places]
    is_computed = (c.has(2) and scales is None) or (c.has(3) and sizes is None)
    if is_computed or (sizes is not None and sizes.size and 0 in lengths):
        return None
    roi = c.known(1, "the region of interest") if c.has(1) and is_cropped(c.attributes) else None
    found = resized_axes(c.attributes, places, lengths, scales, sizes, roi)
    if any(each.target <= 0 and each.size for each in found):
        raise Refusal("an empty result: Core ML has no empty tensors")
    return found


def _nearest(c: Context, x: Var, axes: list[Axis]) -> Var:
    """Write mode "nearest" where sizes are known, by MIL's upsample_nearest_neighbor or a gather along each axis."""
    factors = _integer_factors(c, axes)
    if factors is not None and is_float(x) and _are_last_two(x, axes):
        return _upsample_nearest(x, factors, axes)
    for each in axes:
        places = source_coordinates(c.attributes, each)
        picked = nearest_indices(c.attributes, places).clip(0, each.size - 1)
        x = through_int(x, lambda value, i=picked, a=each.axis: mb.gather(x=value, indices=i, axis=a))
        x = extrapolated(c, x, each, places)
    return x


def _integer_factors(c: Context, axes: list[Axis]) -> list[int] | None:
    """For each axis, the number n if resizing repeats each element n times; None if an axis is resized in another way.
    To find out, the indices of a row are resized as the axis would be; the row has 7 elements if the size is unknown.
    """
    factors: list[int] = []
    for each in axes:
        size = each.size or 7
        factor = int(each.scale)
        if factor != each.scale or is_cropped(c.attributes) or (each.size and each.target != size * factor):
            return None
        probe = Axis(each.axis, size, size * factor, each.scale, size * factor)
        picked = nearest_indices(c.attributes, source_coordinates(c.attributes, probe)).clip(0, size - 1)
        if not np.array_equal(picked, np.arange(size * factor) // factor):
            return None
        factors.append(factor)
    return factors


def _are_last_two(x: Var, axes: list[Axis]) -> bool:
    return 3 <= x.rank <= 5 and all(each.axis >= x.rank - 2 for each in axes)


def _upsample_nearest(x: Var, factors: list[int], axes: list[Axis]) -> Var:
    by_axis = {each.axis: factor for each, factor in zip(axes, factors, strict=True)}
    return mb.upsample_nearest_neighbor(
        x=x,
        scale_factor_height=np.int32(by_axis.get(x.rank - 2, 1)),
        scale_factor_width=np.int32(by_axis.get(x.rank - 1, 1)),
    )


def _by_integer_factors(c: Context, x: Var, axes: list[Axis], mode: str) -> Var | None:
    """Repeat elements in mode "nearest" along dimensions of unknown size; None if the scales are not integers."""
    # Refuse align_corners: there, how often each element is repeated depends on the size, which is unknown here.
    is_aligned = c.attributes.get("coordinate_transformation_mode") == "align_corners"
    if not _are_last_two(x, axes) or not is_float(x) or mode != "nearest" or is_aligned:
        return None
    factors = _integer_factors(c, axes)
    return None if factors is None else _upsample_nearest(x, factors, axes)


def _native_linear(c: Context, x: Var, axes: list[Axis]) -> Var | None:
    """Write MIL's resize_bilinear; return None if a scale is not exactly target / size, or MIL lacks the mode."""
    sampling = SAMPLING.get(c.attributes.get("coordinate_transformation_mode", "half_pixel"))
    is_plain = not c.attributes.get("antialias", 0) and not c.attributes.get("exclude_outside", 0)
    is_exact = all(each.size * each.scale == each.target and each.target > 1 for each in axes)
    if c.attributes["mode"] != "linear" or sampling is None or not is_plain or not is_exact:
        return None
    if x.rank != 4 or not _are_last_two(x, axes) or not has_static_shape(x):
        return None
    sizes = {each.axis: each.target for each in axes}
    return mb.resize_bilinear(
        x=x,
        target_size_height=np.int32(sizes.get(2, int(x.shape[2]))),
        target_size_width=np.int32(sizes.get(3, int(x.shape[3]))),
        sampling_mode=sampling,
    )


def _interpolate(c: Context, x: Var, axes: list[Axis], mode: str) -> Var:
    """Write any linear or cubic mode as a product with a constant matrix of weights along each axis."""
    for each in axes:
        places = source_coordinates(c.attributes, each)
        matrix = interpolation_matrix(c.attributes, each, places, mode).astype(dtype_of(x))
        x = product_along(c.builder, x, np.ascontiguousarray(matrix.T), each.axis)
        x = extrapolated(c, x, each, places)
    return x


TABLE: dict[str, Lowering] = {"Resize": _resize}
