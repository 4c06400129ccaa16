"""Resize of dimensions whose sizes or scales are known only at run time.

Each element of the result is an element of the input, or a weighted sum of some elements. Their indices and weights are
computed by `graph.conversion.lowering.resize_free`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from triune.coreml.lowering.broadcast import as_vector, sizes_of
from triune.coreml.lowering.context import Context, Refusal, through_int
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.coreml.lowering.options import Target
from triune.coreml.lowering.precision import in_fp32
from triune.graph.conversion.lowering.resize import nearest
from triune.graph.conversion.lowering.resize_free import (
    ResizedAxis,
    clipped_indices,
    coordinates,
    far_weight,
    near_weight,
)
from triune.graph.conversion.resize import coordinate_mode, is_cropped

SAMPLING = {"half_pixel": "UNALIGN_CORNERS", "align_corners": "STRICT_ALIGN_CORNERS", "asymmetric": "DEFAULT"}
"""Core ML's `sampling_mode` for each of ONNX's coordinate transformation modes."""


def resize_free(c: Context, x: Var, axes: Sequence[int], mode: str) -> Var:
    """Write a Resize of those of the dimensions `axes` whose size may change.

    Raises:
        Refusal: an attribute has a value for which sizes must be known.
    """
    if is_cropped(c.attributes):
        raise Refusal("tf_crop_and_resize of a dimension of no fixed size; fix it with --shape")
    for name, plain in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch")):
        if c.attributes.get(name, plain) != plain:
            raise Refusal(f"{name} {c.attributes[name]} of a dimension of no fixed size; fix it with --shape")
    if mode == "nearest" and coordinate_mode(c.attributes) == "half_pixel_symmetric":
        # Refuse this mode: ONNX Runtime computes its coordinates in fp64, and where two elements are almost equally
        # near to a coordinate, fp32 may choose the other one.
        raise Refusal("half_pixel_symmetric, nearest, of a dimension of no fixed size; fix it with --shape")
    native = _native(c, x, axes) if mode == "linear" else None
    if native is not None:
        return native
    # Compute coordinates and weights in fp32: fp16 is not precise enough for them.
    with in_fp32():
        found = _resized_axes(c, x, axes)
    for resized in found:
        with in_fp32():
            index = c.builder.cast(c.builder.iota(_target(c, resized, axes)), np.float32)
            places = coordinates(c, resized, index)
            picked = (
                [(clipped_indices(c.builder, resized.own, nearest(c, places)), None)]
                if mode == "nearest"
                else _weighted_indices(c, resized, places, mode)
            )
        x = _weighted_sum(x, resized.axis, picked)
    return x


def _weighted_sum(x: Var, axis: int, picked: Sequence[tuple[Var, Var | None]]) -> Var:
    """Add up weight * element over `picked`: pairs of indices along `axis` and weights. A weight of None means that
    there is one pair, whose elements are the result.
    """
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
    # Refuse align_corners: Core ML and ONNX differ for a result of one element, and a size known only at run time may
    # be 1.
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
    """Whether dimension `axis` is certain to keep its size; `index` is its position in scales and sizes."""
    if c.is_given(2):
        return _element(c, 2, index) == 1.0 if c.constant(2) is not None else False
    sizes = c.constant(3)
    if sizes is not None:
        return is_fixed(x.shape[axis]) and int(sizes[index]) == int(x.shape[axis])
    symbols = c.input(3).sym_val
    return symbols is not None and bool(symbols[index] == x.shape[axis])


def _resized_axes(c: Context, x: Var, axes: Sequence[int]) -> list[ResizedAxis[Var]]:
    """Describe the dimensions among `axes` whose size may change."""
    found: list[ResizedAxis[Var]] = []
    sizes = sizes_of(x)
    for index, axis in enumerate(axes):
        if _is_unchanged(c, x, index, axis):
            continue
        own = _as_fp32(sizes[axis])
        if c.is_given(2):
            scale = _as_fp32(_element(c, 2, index))
            length = mb.mul(x=own, y=scale)
            found.append(ResizedAxis(axis, own, length, mb.floor(x=length), scale, under=scale))
        elif c.is_given(3):
            count = _as_fp32(_element(c, 3, index))
            scale = mb.real_div(x=count, y=own)
            found.append(ResizedAxis(axis, own, count, count, scale, under=scale))
        else:
            raise Refusal("neither scales nor sizes are given")
    return found


def _as_fp32(value: Any) -> Var:
    """Convert a number, or a scalar of the program, to a scalar of fp32."""
    return mb.const(val=np.float32(value)) if isinstance(value, (int, float)) else mb.cast(x=value, dtype="fp32")


def _target(c: Context, resized: ResizedAxis[Var], axes: Sequence[int]) -> Any:
    """The size of a dimension in the result: a number, or an int32 scalar of the program."""
    if not c.is_given(2):
        return _element(c, 3, list(axes).index(resized.axis))
    return mb.cast(x=resized.count, dtype="int32")


def _weighted_indices(c: Context, resized: ResizedAxis[Var], places: Var, mode: str) -> list[tuple[Var, Var | None]]:
    """For each coordinate, the indices of the elements around it (2 or 4), and the weight of each."""
    base = mb.floor(x=places)
    ratio = mb.sub(x=places, y=base)
    steps = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
    found: list[tuple[Var, Var]] = []
    for step in steps:
        at = mb.add(x=base, y=np.float32(step))
        distance = mb.abs(x=mb.sub(x=ratio, y=np.float32(step)))
        weight = _linear_weight(distance) if mode == "linear" else _cubic_weight(c, distance, step)
        if c.attributes.get("exclude_outside", 0):
            last = mb.sub(x=resized.own, y=np.float32(1))
            is_inside = mb.logical_and(x=mb.greater_equal(x=at, y=np.float32(0)), y=mb.less_equal(x=at, y=last))
            weight = mb.mul(x=weight, y=mb.cast(x=is_inside, dtype="fp32"))
        found.append((clipped_indices(c.builder, resized.own, at), weight))
    if not c.attributes.get("exclude_outside", 0):
        return found
    total = found[0][1]
    for _, weight in found[1:]:
        total = mb.add(x=total, y=weight)
    return [(at, mb.real_div(x=weight, y=total)) for at, weight in found]


def _cubic_weight(c: Context, distance: Var, step: int) -> Var:
    """The weight in cubic interpolation. `step` is index - floor(coordinate), `distance` |index - coordinate|."""
    a = float(c.attributes.get("cubic_coeff_a", -0.75))
    return near_weight(c.builder, distance, a) if step in (0, 1) else far_weight(c.builder, distance, a)


def _linear_weight(distance: Var) -> Var:
    """The weight of linear interpolation: 1 - distance."""
    return mb.sub(x=np.float32(1), y=distance)
