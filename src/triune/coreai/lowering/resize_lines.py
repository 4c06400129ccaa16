"""The coordinates in a dimension at which a Resize samples it, computed at run time.

The formulas are those of `graph.conversion.lowering.resize_free`. If a scale is a ratio of sizes, ONNX divides by the
scale. Here the coordinate is multiplied by one size and divided by the other, so that integer coordinates are exact.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context
from triune.coreai.lowering.dims import as_scalar, cut, dim_of, element, iota, scalar
from triune.coreai.lowering.unary import floor
from triune.coreai.lowering.values import cast, constant, rank_of, shape_of
from triune.graph.conversion.lowering.resize_free import ResizedAxis, coordinates
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.resize import is_cropped

Line: TypeAlias = ResizedAxis[Value]
"""How one dimension is resized, in values of the program: see `ResizedAxis`."""


class Resized(NamedTuple):
    """A dimension that is resized, described twice with the same numbers from different operations.

    Attributes:
        numbers: the description from which elements are computed. A size that is not known is found by counting the
            elements at run time, to avoid an error of Apple's interpreter (see `_counted`).
        shapes: the description from which shapes are computed. Its sizes come from shapes, so that shapes do not
            depend on elements.
    """

    numbers: Line
    shapes: Line

    @property
    def target(self) -> Value:
        """The size of the dimension in the result, in int32."""
        return cast(self.shapes.count, np.int32)


def number(value: float) -> Value:
    """Write an fp32 scalar."""
    return constant(np.float32(value))


def resized(c: Context, x: Value, axes: Sequence[int], is_changed: Sequence[bool]) -> list[Resized]:
    """Describe those of the dimensions `axes` for which `is_changed` is true.

    The scales, sizes and regions of all `axes` are read, since keep_aspect_ratio_policy compares dimensions.
    """
    numbers = _with_copies(c, _described(c, axes, [_counted(x, axis) for axis in axes]))
    shapes = _described(c, axes, [cast(as_scalar(dim_of(x, axis)), np.float32) for axis in axes])
    found = [Resized(*both) for both in zip(numbers, shapes, strict=True)]
    return [each for each, changes in zip(found, is_changed, strict=True) if changes]


def _counted(x: Value, axis: int) -> Value:
    """The size of a dimension as an fp32 scalar. If it is not known, its elements are counted at run time.

    The size is not taken from the value's shape, because of an error of Apple's interpreter (1.0.0b3): if `x` was
    gathered, by an earlier Resize for example, the interpreter loses coordinates that are computed from its shape.
    """
    size = shape_of(x)[axis]
    if size is not None:
        return number(size)
    for each in range(rank_of(x)):
        x = x if each == axis else cut(x, each, 0, 1)
    some = cast(x, np.bool_)
    all_ = cast(ops.or_(some, ops.not_(some)), np.float32)
    return scalar(ops.reduce_sum(all_, constant(np.arange(rank_of(x), dtype=np.int32))))


def _described(c: Context, axes: Sequence[int], owns: Sequence[Value]) -> list[Line]:
    """Describe how each of `axes` is resized; `owns` are their sizes in the input."""
    if c.is_given(2):
        scales = [_element(c, 2, index) for index in range(len(axes))]
        found = [_by_scale(axis, own, scale) for axis, own, scale in zip(axes, owns, scales, strict=True)]
    elif c.is_given(3):
        found = _by_sizes(c, axes, owns, [_element(c, 3, index) for index in range(len(axes))])
    else:
        raise Refusal("neither scales nor sizes are given")
    if not is_cropped(c.attributes):
        return found
    return [replace(line, roi=_roi(c, index, len(axes))) for index, line in enumerate(found)]


def _with_copies(c: Context, lines: Sequence[Line]) -> list[Line]:
    """Set `is_copied` of each dimension: whether its elements stay as they are, by the rules of
    `graph.conversion.resize.resized_axes`.
    """
    together: Value | None = None
    if all(_may_keep_size(c, index) for index in range(len(lines))):
        together = functools.reduce(ops.broadcasting_and, [_is_equal(line.count, line.own) for line in lines])
    found: list[Line] = []
    for line in lines:
        alone: Value | None = None
        if c.attributes.get("antialias", 0):
            alone = _is_equal(line.count, line.own)
        elif is_cropped(c.attributes):
            alone = _is_equal(line.scale, number(1))
        reasons = [each for each in (together, alone) if each is not None]
        found.append(replace(line, is_copied=functools.reduce(ops.broadcasting_or, reasons) if reasons else None))
    return found


def _may_keep_size(c: Context, index: int) -> bool:
    """Whether Resize may change the elements of a dimension and not its size: by cropping, or by a scale below 2."""
    if not c.is_given(2):
        return is_cropped(c.attributes)
    scales = c.constant(2)
    return scales is None or 1 <= scales[index] < 2


def _is_equal(one: Value, other: Value) -> Value:
    return ops.broadcasting_equal(one, other)


def _roi(c: Context, index: int, count: int) -> tuple[Value, Value]:
    """The beginning and end of the region of interest in one dimension; 0 and 1 if no region is given."""
    if not c.is_given(1):
        return number(0), number(1)
    return _element(c, 1, index), _element(c, 1, index + count)


def _element(c: Context, operand: int, index: int) -> Value:
    """One element of an operand, in fp32."""
    given = c.constant(operand)
    return number(float(given[index])) if given is not None else cast(element(c.input(operand), index), np.float32)


def _by_scale(axis: int, own: Value, scale: Value) -> Line:
    length = ops.broadcasting_mul(own, scale)
    # ONNX's shape inference and ONNX Runtime compute the new size as floor(size * scale) in fp32.
    return Line(axis, own, length, floor(length), scale, under=scale)


def _by_sizes(c: Context, axes: Sequence[int], owns: Sequence[Value], sizes: Sequence[Value]) -> list[Line]:
    policy = c.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return [
            Line(axis, own, size, size, ops.broadcasting_divide(size, own), under=size, over=own)
            for axis, own, size in zip(axes, owns, sizes, strict=True)
        ]
    choose: Callable[[Value, Value], Value]
    if policy == "not_larger":
        choose = ops.broadcasting_minimum
    elif policy == "not_smaller":
        choose = ops.broadcasting_maximum
    else:
        raise Refusal(f"keep_aspect_ratio_policy '{policy}'")
    factors = [ops.broadcasting_divide(size, own) for size, own in zip(sizes, owns, strict=True)]
    factor = factors[0]
    for other in factors[1:]:
        factor = choose(factor, other)
    found: list[Line] = []
    for axis, own in zip(axes, owns, strict=True):
        length = ops.broadcasting_mul(own, factor)
        count = floor(ops.broadcasting_add(length, number(0.5)))
        found.append(Line(axis, own, length, count, factor, under=factor))
    return found


def places_of(c: Context, each: Resized) -> Value:
    """The coordinate in the dimension for each element of the result: a vector of fp32."""
    return coordinates(c, each.numbers, cast(iota(each.target), np.float32))
