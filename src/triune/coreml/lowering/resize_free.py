"""Resize of dimensions whose sizes or scales are not known before the model runs.

Along each dimension elements are gathered, or weighted sums of them. The formulas are those of
`graph.conversion.resize`, in fp32 and in ONNX Runtime's order, so that of two equally near elements the same one is
picked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from triune.coreml.lowering.broadcast import as_vector, sizes_of
from triune.coreml.lowering.context import Context, Refusal, through_int
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.coreml.lowering.options import Target
from triune.coreml.lowering.precision import as_given
from triune.graph.conversion.lowering.resize import nearest
from triune.graph.conversion.resize import coordinates_of

SAMPLING = {"half_pixel": "UNALIGN_CORNERS", "align_corners": "STRICT_ALIGN_CORNERS", "asymmetric": "DEFAULT"}
"""Core ML's `sampling_mode` for each of ONNX's coordinate transformation modes."""


@dataclass(frozen=True, slots=True)
class _Line:
    """How one dimension is resized. All but `axis` are scalars that are known, or computed at run time.

    Attributes:
        axis: the dimension.
        own: its size, in fp32.
        target: the size of the result, in int32.
        count: the size of the result, in fp32.
        scale: the ratio of the result's size to the dimension's, in fp32.
    """

    axis: int
    own: Any
    target: Any
    count: Any
    scale: Any


def resize_free(c: Context, x: Var, axes: Sequence[int], mode: str) -> Var:
    """Resize `x` along those of the dimensions `axes` that may change.

    Raises:
        Refusal: an attribute has a value for which sizes must be known.
    """
    for name, plain in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch")):
        if c.attributes.get(name, plain) != plain:
            raise Refusal(f"{name} {c.attributes[name]} of a dimension of no fixed size; fix it with --shape")
    if mode == "nearest" and coordinates_of(c.attributes) == "half_pixel_symmetric":
        # ONNX Runtime computes these coordinates in fp64, which may pick another one of two equally near elements.
        raise Refusal("half_pixel_symmetric, nearest, of a dimension of no fixed size; fix it with --shape")
    native = _native(c, x, axes) if mode == "linear" else None
    if native is not None:
        return native
    # fp16 is not precise enough for coordinates and weights.
    with as_given():
        lines = _lines(c, x, axes)
    for line in lines:
        with as_given():
            places = _places(c, line)
            picked = (
                [(_within(line, nearest(c, places)), None)] if mode == "nearest" else _weighed(c, line, places, mode)
            )
        x = _summed(x, line.axis, picked)
    return x


def _summed(x: Var, axis: int, picked: Sequence[tuple[Var, Var | None]]) -> Var:
    """The sum over `picked` of the elements at indices times their weights; the elements themselves if unweighted."""
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
    """Core ML's own resize to computed sizes; None if it does not agree with ONNX or the target lacks it."""
    sampling = SAMPLING.get(coordinates_of(c.attributes))
    is_plain = sampling is not None and not c.attributes.get("exclude_outside", 0) and c.is_given(3)
    changed = [axis for index, axis in enumerate(axes) if not _stays(c, x, index, axis)]
    is_image = x.rank in (3, 4, 5) and all(axis >= x.rank - 2 for axis in changed)
    # For a result of one element, align_corners differs between Core ML and ONNX, and a computed size may be 1.
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
    """Element `index` of an operand: a number if it is known, else a scalar that is computed."""
    known = c.constant(operand)
    if known is not None:
        value = known.reshape(-1)[index]
        return int(value) if known.dtype.kind in "iu" else float(value)
    return mb.squeeze(x=mb.slice_by_size(x=c.input(operand), begin=[index], size=[1]), axes=[0])


def _stays(c: Context, x: Var, index: int, axis: int) -> bool:
    """Whether the dimension `axis`, which scales and sizes have at `index`, is known not to change."""
    if c.is_given(2):
        return _element(c, 2, index) == 1.0 if c.constant(2) is not None else False
    sizes = c.constant(3)
    if sizes is not None:
        return is_fixed(x.shape[axis]) and int(sizes[index]) == int(x.shape[axis])
    symbols = c.input(3).sym_val
    return symbols is not None and bool(symbols[index] == x.shape[axis])


def _lines(c: Context, x: Var, axes: Sequence[int]) -> list[_Line]:
    """Describe the resizing of those of the dimensions `axes` that may change."""
    lines: list[_Line] = []
    sizes = sizes_of(x)
    for index, axis in enumerate(axes):
        if _stays(c, x, index, axis):
            continue
        own = _number(sizes[axis])
        if c.is_given(2):
            scale = _number(_element(c, 2, index))
            count = mb.floor(x=mb.mul(x=own, y=scale))
            lines.append(_Line(axis, own, mb.cast(x=count, dtype="int32"), count, scale))
        elif c.is_given(3):
            target = _element(c, 3, index)
            count = _number(target)
            lines.append(_Line(axis, own, target, count, mb.real_div(x=count, y=own)))
        else:
            raise Refusal("neither scales nor sizes are given")
    return lines


def _number(value: Any) -> Any:
    """Convert a number, or a scalar of the program, to fp32."""
    return np.float32(value) if isinstance(value, (int, float)) else mb.cast(x=value, dtype="fp32")


def _places(c: Context, line: _Line) -> Var:
    """The coordinate in the dimension of each element of the result: a vector of fp32."""
    end = np.int32(line.target) if isinstance(line.target, int) else line.target
    index = mb.cast(x=mb.range_1d(start=np.int32(0), end=end, step=np.int32(1)), dtype="fp32")
    half, one = np.float32(0.5), np.float32(1)
    halves = mb.sub(x=mb.real_div(x=mb.add(x=index, y=half), y=line.scale), y=half)
    match mode := coordinates_of(c.attributes):
        case "half_pixel":
            return halves
        case "asymmetric":
            return mb.real_div(x=index, y=line.scale)
        case "align_corners":
            # For a result of one element the index is 0, so that any divisor but 0 will do.
            span = mb.maximum(x=mb.sub(x=line.count, y=one), y=half)
            return mb.real_div(x=mb.mul(x=index, y=mb.sub(x=line.own, y=one)), y=span)
        case "pytorch_half_pixel":
            return mb.mul(x=halves, y=mb.cast(x=mb.greater(x=line.count, y=one), dtype="fp32"))
        case "half_pixel_symmetric":
            rest = mb.sub(x=one, y=mb.real_div(x=line.count, y=mb.mul(x=line.scale, y=line.own)))
            return mb.add(x=mb.mul(x=mb.mul(x=line.own, y=half), y=rest), y=halves)
        case _:
            raise Refusal(f"coordinate_transformation_mode '{mode}' of a dimension of no fixed size; give --shape")


def _within(line: _Line, indices: Var) -> Var:
    """Clip indices to the dimension and convert them to int32."""
    last = mb.sub(x=line.own, y=np.float32(1))
    clipped = mb.minimum(x=mb.maximum(x=indices, y=np.float32(0)), y=last)
    return mb.cast(x=clipped, dtype="int32")


def _weighed(c: Context, line: _Line, places: Var, mode: str) -> list[tuple[Var, Var | None]]:
    """The indices of the elements around each coordinate, and their weights."""
    base = mb.floor(x=places)
    ratio = mb.sub(x=places, y=base)
    steps = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
    found: list[tuple[Var, Var]] = []
    for step in steps:
        at = mb.add(x=base, y=np.float32(step))
        distance = mb.abs(x=mb.sub(x=ratio, y=np.float32(step)))
        weight = _hat(distance) if mode == "linear" else _cubic(distance, step, _a(c))
        if c.attributes.get("exclude_outside", 0):
            last = mb.sub(x=line.own, y=np.float32(1))
            is_inside = mb.logical_and(x=mb.greater_equal(x=at, y=np.float32(0)), y=mb.less_equal(x=at, y=last))
            weight = mb.mul(x=weight, y=mb.cast(x=is_inside, dtype="fp32"))
        found.append((_within(line, at), weight))
    if not c.attributes.get("exclude_outside", 0):
        return found
    total = found[0][1]
    for _, weight in found[1:]:
        total = mb.add(x=total, y=weight)
    return [(at, mb.real_div(x=weight, y=total)) for at, weight in found]


def _a(c: Context) -> float:
    return float(c.attributes.get("cubic_coeff_a", -0.75))


def _hat(distance: Var) -> Var:
    return mb.sub(x=np.float32(1), y=distance)


def _cubic(distance: Var, step: int, a: float) -> Var:
    """The cubic convolution kernel of Keys (1981) for the element at `step` from the floor of the coordinate.

    For steps 0 and 1 the distance is at most 1, for -1 and 2 it is from 1 to 2.
    """
    coefficients = [a + 2, -(a + 3), 0, 1] if step in (0, 1) else [a, -5 * a, 8 * a, -4 * a]
    total: Var = None
    for coefficient in coefficients:
        number = np.float32(coefficient)
        total = number if total is None else mb.add(x=mb.mul(x=distance, y=total), y=number)
    return total
