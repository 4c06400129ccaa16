"""Resize: each dimension in turn is a product with a matrix, or picks elements; Core ML's own ops where they agree.

The formulas are those of ONNX's standard (operator Resize) and of its reference evaluator.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.coreml.lowering.broadcast import select
from triune.coreml.lowering.context import (
    Context,
    Lowering,
    Refusal,
    dtype_of,
    has_static_shape,
    is_float,
    like,
    positive,
    static_dim,
    through_int,
)
from triune.coreml.lowering.mb import Var, is_fixed, mb

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Axis:
    """How one dimension is resized.

    Attributes:
        axis: which.
        size: how long it is; 0 where that is not known.
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


def _resize(c: Context) -> None:
    x = c.input(0)
    axes = _axes(c, x)
    mode = c.attributes.get("mode", "nearest")
    if any(each.size == 0 for each in axes):
        c.give(_by_whole_factors(c, x, axes, mode))
        return
    if mode == "nearest":
        c.give(_nearest(c, x, axes))
        return
    if not is_float(x):
        raise Refusal(f"{mode} interpolation of whole numbers; cast them to FLOAT")
    c.give(_native_linear(c, x, axes) or _interpolate(c, x, axes, mode))


def _axes(c: Context, x: Var) -> list[_Axis]:
    """The dimensions that change."""
    places = [positive(each, x.rank) for each in c.attributes.get("axes", range(x.rank))]
    scales, sizes = c.constant(2), c.constant(3)
    if (c.has(2) and scales is None) or (c.has(3) and sizes is None):
        raise Refusal("the scales or sizes are computed while the model runs; fix the shapes that they depend on")
    roi = c.known(1, "the region of interest") if c.has(1) and _is_cropped(c) else None
    if sizes is not None and sizes.size:
        lengths = [static_dim(x, axis, "a resized dimension") for axis in places]
        factors = [int(size) / length for size, length in zip(sizes, lengths, strict=True)]
        policy = c.attributes.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(factors)
            targets = [int(np.floor(factor * length + 0.5)) for length in lengths]
        else:
            targets = [int(size) for size in sizes]
    elif scales is not None and scales.size:
        factors = [float(each) for each in scales]
        lengths = [int(x.shape[axis]) if is_fixed(x.shape[axis]) else 0 for axis in places]
        targets = [int(np.floor(length * factor)) for length, factor in zip(lengths, factors, strict=True)]
    else:
        raise Refusal("neither scales nor sizes are given")
    found = [
        _Axis(axis, lengths[index], targets[index], factors[index])
        if roi is None
        else _Axis(
            axis, lengths[index], targets[index], factors[index], float(roi[index]), float(roi[index + len(places)])
        )
        for index, axis in enumerate(places)
    ]
    if any(each.target <= 0 and each.size for each in found):
        raise Refusal("an empty result: Core ML has no empty tensors")
    return [each for each in found if each.scale != 1 or each.size != each.target or roi is not None]


def _is_cropped(c: Context) -> bool:
    return c.attributes.get("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"


def _places(c: Context, each: _Axis) -> Floats:
    """For each element of the result its place in the dimension."""
    mode = c.attributes.get("coordinate_transformation_mode", "half_pixel")
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


def _nearest(c: Context, x: Var, axes: list[_Axis]) -> Var:
    factors = _whole_factors(c, axes)
    if factors is not None and is_float(x) and _are_last_two(x, axes):
        return _upsample_nearest(x, factors, axes)
    for each in axes:
        places = _places(c, each)
        picked = _picked(c, places).clip(0, each.size - 1)
        x = through_int(x, lambda value, i=picked, a=each.axis: mb.gather(x=value, indices=i, axis=a))
        x = _extrapolated(c, x, each, places)
    return x


def _picked(c: Context, places: Floats) -> NDArray[np.int32]:
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


def _whole_factors(c: Context, axes: list[_Axis]) -> list[int] | None:
    """The factors, where every element is simply repeated so many times."""
    factors: list[int] = []
    for each in axes:
        size = each.size or 7
        factor = int(each.scale)
        if factor != each.scale or _is_cropped(c) or (each.size and each.target != size * factor):
            return None
        probe = _Axis(each.axis, size, size * factor, each.scale)
        picked = _picked(c, _places(c, probe)).clip(0, size - 1)
        if not np.array_equal(picked, np.arange(size * factor) // factor):
            return None
        factors.append(factor)
    return factors


def _are_last_two(x: Var, axes: list[_Axis]) -> bool:
    return 3 <= x.rank <= 5 and all(each.axis >= x.rank - 2 for each in axes)


def _upsample_nearest(x: Var, factors: list[int], axes: list[_Axis]) -> Var:
    by_axis = {each.axis: factor for each, factor in zip(axes, factors, strict=True)}
    return mb.upsample_nearest_neighbor(
        x=x,
        scale_factor_height=np.int32(by_axis.get(x.rank - 2, 1)),
        scale_factor_width=np.int32(by_axis.get(x.rank - 1, 1)),
    )


def _by_whole_factors(c: Context, x: Var, axes: list[_Axis], mode: str) -> Var:
    """Of a size that is not known, where the factors are whole numbers."""
    if _are_last_two(x, axes) and is_float(x) and mode == "nearest":
        factors = _whole_factors(c, axes)
        # Align_corners depends on the size itself.
        if factors is not None and c.attributes.get("coordinate_transformation_mode") != "align_corners":
            return _upsample_nearest(x, factors, axes)
    raise Refusal("a dimension of no fixed size is resized by other than repeating elements; fix it with --shape")


_SAMPLING = {"half_pixel": "UNALIGN_CORNERS", "align_corners": "STRICT_ALIGN_CORNERS", "asymmetric": "DEFAULT"}


def _native_linear(c: Context, x: Var, axes: list[_Axis]) -> Var | None:
    """Core ML's bilinear resize, where the scale is exactly that of the sizes."""
    sampling = _SAMPLING.get(c.attributes.get("coordinate_transformation_mode", "half_pixel"))
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


def _interpolate(c: Context, x: Var, axes: list[_Axis], mode: str) -> Var:
    for each in axes:
        places = _places(c, each)
        matrix = _matrix(c, each, places, mode).astype(dtype_of(x))
        x = _apply(x, matrix, each.axis)
        x = _extrapolated(c, x, each, places)
    return x


def _apply(x: Var, matrix: NDArray[Any], axis: int) -> Var:
    """A product along one dimension."""
    last = x.rank - 1
    perm = [place for place in range(x.rank) if place != axis] + [axis]
    turned = x if axis == last else mb.transpose(x=x, perm=perm)
    if turned.rank == 1:
        flat = mb.matmul(x=mb.expand_dims(x=turned, axes=[0]), y=np.ascontiguousarray(matrix.T))
        return mb.squeeze(x=flat, axes=[0])
    product = mb.matmul(x=turned, y=np.ascontiguousarray(matrix.T))
    return product if axis == last else mb.transpose(x=product, perm=[int(each) for each in np.argsort(perm)])


def _matrix(c: Context, each: _Axis, places: Floats, mode: str) -> Floats:
    """Of each element of the result the weights of all elements of the dimension."""
    base = np.ceil(places).astype(np.int64) - 1
    ratio = places - base
    scale = min(each.scale, 1.0) if c.attributes.get("antialias", 0) else 1.0
    reach = 1 if mode == "linear" else 2
    start = int(np.floor(-reach / scale)) + 1
    offsets = np.arange(start, 2 - start)
    distance = np.abs((offsets[None, :] - ratio[:, None]) * scale)
    if mode == "linear":
        weights = np.clip(1 - distance, 0, 1)
    elif mode == "cubic":
        weights = _cubic(distance, float(c.attributes.get("cubic_coeff_a", -0.75)))
    else:
        raise Refusal(f"mode '{mode}'")
    index = base[:, None] + offsets[None, :]
    if c.attributes.get("exclude_outside", 0):
        weights = np.where((index >= 0) & (index < each.size), weights, 0)
    if c.attributes.get("exclude_outside", 0) or scale < 1:
        weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((each.target, each.size))
    np.add.at(matrix, (np.arange(each.target)[:, None], index.clip(0, each.size - 1)), weights)
    return matrix


def _cubic(x: Floats, a: float) -> Floats:
    """Keys' kernel (1981)."""
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _extrapolated(c: Context, x: Var, each: _Axis, places: Floats) -> Var:
    """What lies outside of the image has a value of its own."""
    if not _is_cropped(c):
        return x
    inside = (places >= 0) & (places <= each.size - 1)
    if inside.all():
        return x
    form = [1] * x.rank
    form[each.axis] = each.target
    value = like(x, c.attributes.get("extrapolation_value", 0.0))
    return select(mb.const(val=inside.reshape(form)), x, mb.const(val=value))


TABLE: dict[str, Lowering] = {"Resize": _resize}
