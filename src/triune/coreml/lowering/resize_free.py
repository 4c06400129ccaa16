"""Resize of dimensions whose sizes or scales are known only at run time.

Each element of the result is an element of the input, or a weighted sum of some. The formulas are those of
`graph.conversion.resize`. They are computed in fp32 and in ONNX Runtime's order, so that mode "nearest" picks the same
element of two that are equally near.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from triune.coreml.lowering.broadcast import as_vector, sizes_of
from triune.coreml.lowering.context import Context, Refusal, through_int
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.coreml.lowering.options import Target
from triune.coreml.lowering.precision import in_fp32
from triune.graph.conversion.lowering.resize import nearest
from triune.graph.conversion.resize import coordinate_mode

SAMPLING = {"half_pixel": "UNALIGN_CORNERS", "align_corners": "STRICT_ALIGN_CORNERS", "asymmetric": "DEFAULT"}
"""Core ML's `sampling_mode` for each of ONNX's coordinate transformation modes."""


@dataclass(frozen=True, slots=True)
class _ResizedAxis:
    """How one dimension is resized. Each field but `axis` is a number, or a scalar of the program.

    Attributes:
        axis: the dimension.
        own: the size of the dimension, in fp32.
        target: its size in the result, in int32.
        count: its size in the result, in fp32.
        scale: the scale that the node gives, or count / own; in fp32.
    """

    axis: int
    own: Any
    target: Any
    count: Any
    scale: Any


def resize_free(c: Context, x: Var, axes: Sequence[int], mode: str) -> Var:
    """Resize those of the dimensions `axes` whose size may change.

    Raises:
        Refusal: an attribute has a value for which sizes must be known.
    """
    for name, plain in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch")):
        if c.attributes.get(name, plain) != plain:
            raise Refusal(f"{name} {c.attributes[name]} of a dimension of no fixed size; fix it with --shape")
    if mode == "nearest" and coordinate_mode(c.attributes) == "half_pixel_symmetric":
        # ONNX Runtime computes these coordinates in fp64. In fp32 another of two equally near elements may be picked.
        raise Refusal("half_pixel_symmetric, nearest, of a dimension of no fixed size; fix it with --shape")
    native = _native(c, x, axes) if mode == "linear" else None
    if native is not None:
        return native
    # fp16 is not precise enough for coordinates and weights.
    with in_fp32():
        found = _resized_axes(c, x, axes)
    for resized in found:
        with in_fp32():
            places = _coordinates(c, resized)
            picked = (
                [(_clipped_indices(resized, nearest(c, places)), None)]
                if mode == "nearest"
                else _weighted_indices(c, resized, places, mode)
            )
        x = _weighted_sum(x, resized.axis, picked)
    return x


def _weighted_sum(x: Var, axis: int, picked: Sequence[tuple[Var, Var | None]]) -> Var:
    """Add up weight * element over `picked`, pairs of indices along `axis` and weights. Weights may be None: no sum."""
    total: Var = None
    for indices, weights in picked:
        part = through_int(x, lambda value, at=indices: mb.gather(x=value, indices=at, axis=axis))
        if weights is None:
            return part
        others = [each for each in range(x.rank) if each != axis]
        part = mb.mul(x=part, y=mb.expand_dims(x=weights, axes=others) if others else weights)
        total = part if total is None else mb.add(x=total, y=part)
    return total


def _native(c: Context, x: Var, axes: Sequence[int]) -> Var | None:
    """Write MIL's resize to sizes known only at run time; None if it differs from ONNX or the target lacks it."""
    sampling = SAMPLING.get(coordinate_mode(c.attributes))
    is_plain = sampling is not None and not c.attributes.get("exclude_outside", 0) and c.is_given(3)
    changed = [axis for index, axis in enumerate(axes) if not _is_unchanged(c, x, index, axis)]
    is_image = x.rank in (3, 4, 5) and all(axis >= x.rank - 2 for axis in changed)
    # With align_corners and a result of one element, Core ML and ONNX differ; a size known only at run time may be 1.
    if not is_plain or not is_image or sampling == SAMPLING["align_corners"]:
        return None
    if c.target.value < Target.IOS17.value:
        return None
    wanted = {axis: _element(c, 3, index) for index, axis in enumerate(axes)}
    own = sizes_of(x)
    return mb.resize(
        x=x,
        shape=as_vector([wanted.get(axis, own[axis]) for axis in (x.rank - 2, x.rank - 1)]),
        resized_dims=np.uint32(2),
        interpolation_mode="LINEAR",
        sampling_mode=sampling,
    )


def _element(c: Context, operand: int, index: int) -> Any:
    """Element `index` of an operand: a number if it is constant, else a scalar of the program."""
    known = c.constant(operand)
    if known is not None:
        value = known.reshape(-1)[index]
        return int(value) if known.dtype.kind in "iu" else float(value)
    return mb.squeeze(x=mb.slice_by_size(x=c.input(operand), begin=[index], size=[1]), axes=[0])


def _is_unchanged(c: Context, x: Var, index: int, axis: int) -> bool:
    """Whether it is known that dimension `axis` keeps its size; `index` is its position in scales and sizes."""
    if c.is_given(2):
        return _element(c, 2, index) == 1.0 if c.constant(2) is not None else False
    sizes = c.constant(3)
    if sizes is not None:
        return is_fixed(x.shape[axis]) and int(sizes[index]) == int(x.shape[axis])
    symbols = c.input(3).sym_val
    return symbols is not None and bool(symbols[index] == x.shape[axis])


def _resized_axes(c: Context, x: Var, axes: Sequence[int]) -> list[_ResizedAxis]:
    """Describe those of the dimensions `axes` whose size may change."""
    found: list[_ResizedAxis] = []
    sizes = sizes_of(x)
    for index, axis in enumerate(axes):
        if _is_unchanged(c, x, index, axis):
            continue
        own = _as_fp32(sizes[axis])
        if c.is_given(2):
            scale = _as_fp32(_element(c, 2, index))
            count = mb.floor(x=mb.mul(x=own, y=scale))
            found.append(_ResizedAxis(axis, own, mb.cast(x=count, dtype="int32"), count, scale))
        elif c.is_given(3):
            target = _element(c, 3, index)
            count = _as_fp32(target)
            found.append(_ResizedAxis(axis, own, target, count, mb.real_div(x=count, y=own)))
        else:
            raise Refusal("neither scales nor sizes are given")
    return found


def _as_fp32(value: Any) -> Any:
    """Convert a number, or a scalar of the program, to fp32."""
    return np.float32(value) if isinstance(value, (int, float)) else mb.cast(x=value, dtype="fp32")


def _coordinates(c: Context, resized: _ResizedAxis) -> Var:
    """For each element of the result, its coordinate in the input along the dimension: a vector of fp32."""
    end = np.int32(resized.target) if isinstance(resized.target, int) else resized.target
    index = mb.cast(x=mb.range_1d(start=np.int32(0), end=end, step=np.int32(1)), dtype="fp32")
    half, one = np.float32(0.5), np.float32(1)
    halves = mb.sub(x=mb.real_div(x=mb.add(x=index, y=half), y=resized.scale), y=half)
    match mode := coordinate_mode(c.attributes):
        case "half_pixel":
            return halves
        case "asymmetric":
            return mb.real_div(x=index, y=resized.scale)
        case "align_corners":
            # For a result of one element the index is 0. The divisor, count - 1, is then 0, and any other number will
            # do.
            span = mb.maximum(x=mb.sub(x=resized.count, y=one), y=half)
            return mb.real_div(x=mb.mul(x=index, y=mb.sub(x=resized.own, y=one)), y=span)
        case "pytorch_half_pixel":
            return mb.mul(x=halves, y=mb.cast(x=mb.greater(x=resized.count, y=one), dtype="fp32"))
        case "half_pixel_symmetric":
            rest = mb.sub(x=one, y=mb.real_div(x=resized.count, y=mb.mul(x=resized.scale, y=resized.own)))
            return mb.add(x=mb.mul(x=mb.mul(x=resized.own, y=half), y=rest), y=halves)
        case _:
            raise Refusal(f"coordinate_transformation_mode '{mode}' of a dimension of no fixed size; give --shape")


def _clipped_indices(resized: _ResizedAxis, indices: Var) -> Var:
    """Clip fp32 indices to the range 0 to own - 1, and convert them to int32."""
    last = mb.sub(x=resized.own, y=np.float32(1))
    clipped = mb.minimum(x=mb.maximum(x=indices, y=np.float32(0)), y=last)
    return mb.cast(x=clipped, dtype="int32")


def _weighted_indices(c: Context, resized: _ResizedAxis, places: Var, mode: str) -> list[tuple[Var, Var | None]]:
    """For each coordinate, the indices of the elements around it (2 or 4), and the weight of each."""
    base = mb.floor(x=places)
    ratio = mb.sub(x=places, y=base)
    steps = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
    found: list[tuple[Var, Var]] = []
    for step in steps:
        at = mb.add(x=base, y=np.float32(step))
        distance = mb.abs(x=mb.sub(x=ratio, y=np.float32(step)))
        weight = _linear_weight(distance) if mode == "linear" else _cubic_weight(distance, step, _cubic_coefficient(c))
        if c.attributes.get("exclude_outside", 0):
            last = mb.sub(x=resized.own, y=np.float32(1))
            is_inside = mb.logical_and(x=mb.greater_equal(x=at, y=np.float32(0)), y=mb.less_equal(x=at, y=last))
            weight = mb.mul(x=weight, y=mb.cast(x=is_inside, dtype="fp32"))
        found.append((_clipped_indices(resized, at), weight))
    if not c.attributes.get("exclude_outside", 0):
        return found
    total = found[0][1]
    for _, weight in found[1:]:
        total = mb.add(x=total, y=weight)
    return [(at, mb.real_div(x=weight, y=total)) for at, weight in found]


def _cubic_coefficient(c: Context) -> float:
    return float(c.attributes.get("cubic_coeff_a", -0.75))


def _linear_weight(distance: Var) -> Var:
    """The weight of linear interpolation: 1 - distance."""
    return mb.sub(x=np.float32(1), y=distance)


def _cubic_weight(distance: Var, step: int, a: float) -> Var:
    """The cubic convolution kernel of Keys (1981): the weight of an element at `distance` from the coordinate.

    Args:
        distance: |coordinate - index|. For steps 0 and 1 it is at most 1, for -1 and 2 from 1 to 2.
        step: index - floor(coordinate): -1, 0, 1 or 2.
        a: ONNX's attribute `cubic_coeff_a`.
    """
    coefficients = [a + 2, -(a + 3), 0, 1] if step in (0, 1) else [a, -5 * a, 8 * a, -4 * a]
    total: Var = None
    for coefficient in coefficients:
        number = np.float32(coefficient)
        total = number if total is None else mb.add(x=mb.mul(x=distance, y=total), y=number)
    return total
