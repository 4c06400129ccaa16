"""Lowering of Slice and Pad."""

from typing import Any

import numpy as np

from triune.coreai.library import Value, dialect, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import Dim, as_scalar, dim_of, element, scalar, take, vector
from triune.coreai.lowering.values import (
    cast,
    constant,
    dtype_of,
    int32,
    int32s,
    like,
    rank_of,
    shape_of,
    sizes,
    tensor_type,
)
from triune.graph.axes import positive
from triune.graph.conversion.lowering.shapes import known_length
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import EMPTY

_END = np.iinfo(np.int32).max

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _slice(c: Context) -> None:
    x = c.input(0)
    starts, ends, steps = c.constant(1), c.constant(2), c.constant(4)
    if c.has(3):
        axes = c.ints(3, "the axes of a slice")
    else:
        axes = list(range(known_length(c, 1, "the number of sliced axes")))
    begin: list[Dim] = [0] * rank_of(x)
    end: list[Dim] = [_END if size is None else size for size in shape_of(x)]
    stride: list[Dim] = [1] * rank_of(x)
    kind = list(shape_of(x))
    reversed_axes: list[int] = []
    for index, each in enumerate(axes):
        axis = positive(each, rank_of(x))
        one: Dim = element(c.input(1), index) if starts is None else int(starts[index])
        other: Dim = element(c.input(2), index) if ends is None else int(ends[index])
        step: Dim = 1
        if c.has(4):
            step = element(c.input(4), index) if steps is None else int(steps[index])
        size = shape_of(x)[axis]
        if _reverses_all(one, other, step, size):
            reversed_axes.append(axis)
            continue
        if size is None and isinstance(step, int) and step < 0:
            # If the step is negative and the size is not known, Core AI (1.0.0b3) takes wrong elements or crashes:
            # reverse first, then slice forwards.
            reversed_axes.append(axis)
            one, other, step = _index_reversed(one), _index_reversed(other), -step
        kind[axis] = None
        if size is not None and isinstance(one, int) and isinstance(other, int) and isinstance(step, int):
            found = range(*slice(one, other, step).indices(size))
            if len(found) == 0:
                c.give(EMPTY)
                return
            kind[axis] = len(found)
            one = found.start
            # To include the first element, write the end as -size - 1, since -1 would mean the last element.
            other = found.stop if found.stop >= 0 else -size - 1
        begin[axis], end[axis], stride[axis] = one, other, step
    # Core AI (1.0.0b3) drops a slice that keeps the shape, even if it reverses the elements: use reverse.
    x = ops.reverse(x, int32s(reversed_axes)) if reversed_axes else x
    result = tensor_type(kind, dtype_of(x))
    c.give(dialect.SliceOp(x, vector(begin), vector(end), vector(stride), results=[result]).result)


def _index_reversed(index: Dim) -> Dim:
    """The index, in the reversed dimension, of an element: -1 for 0, -2 for 1."""
    return -1 - index if isinstance(index, int) else ops.sub(int32(-1), index)


def _reverses_all(start: Dim, end: Dim, step: Dim, size: int | None) -> bool:
    """Whether the slice takes the whole dimension in reverse order."""
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(step, int)) or step != -1:
        return False
    if size is None:
        return start in (-1, _END) and end <= -_END
    return len(range(*slice(start, end, step).indices(size))) == size


def _pad(c: Context) -> None:
    x = c.input(0)
    mode = c.attributes.get("mode", "constant")
    axes = [positive(each, rank_of(x)) for each in (c.ints(3, "the padded axes") if c.has(3) else range(rank_of(x)))]
    pads = c.constant(1)
    if pads is None:
        c.give(_pad_as_computed(c, x, axes, mode))
        return
    begins, ends = [0] * rank_of(x), [0] * rank_of(x)
    for index, axis in enumerate(axes):
        begins[axis] = int(pads[index])
        ends[axis] = int(pads[index + len(axes)])
    if min(*begins, *ends, 0) < 0:
        if mode != "constant":
            raise Refusal(f"negative padding in mode '{mode}'; use Slice")
        x = _cropped(x, begins, ends)
        begins, ends = ([max(each, 0) for each in side] for side in (begins, ends))
    if mode != "constant":
        x, begins, ends = _with_gathered_padding(x, begins, ends, mode)
    if any(begins) or any(ends):
        widths = sizes([each for pair in zip(begins, ends, strict=True) for each in pair])
        x = ops.pad(x, widths, _pad_value(c, x, mode), _MODES[mode])
    c.give(x)


def _pad_value(c: Context, x: Value, mode: str) -> Value:
    # In other modes than "constant" the operand is not used, but must be a constant.
    return scalar(c.input(2)) if c.has(2) and mode == "constant" else like(x, 0)


def _cropped(x: Value, begins: list[int], ends: list[int]) -> Value:
    """Remove elements at the beginning and end of each dimension whose padding is negative: -2 removes two."""
    shape = shape_of(x)
    begin = [max(-each, 0) for each in begins]
    end = [(_END if size is None else size) if each >= 0 else each for size, each in zip(shape, ends, strict=True)]
    for size, one, other in zip(shape, begins, ends, strict=True):
        if size is not None and size + min(one, 0) + min(other, 0) <= 0:
            raise Refusal("an empty result: Core AI has no empty tensors")
    return ops.slice_(x, int32s(begin), int32s(end), int32s([1] * len(begin)))


def _with_gathered_padding(
    x: Value, begins: list[int], ends: list[int], mode: str
) -> tuple[Value, list[int], list[int]]:
    """Pad along axes where the padding is larger than Core AI's operation allows, by a gather of padded indices.

    Returns:
        the result, and the padding before and after each dimension that remains to be added.
    """
    begins, ends = list(begins), list(ends)
    for axis, (before, after) in enumerate(zip(begins, ends, strict=True)):
        size = shape_of(x)[axis]
        if size is None or mode == "edge" or max(before, after) <= size - (1 if mode == "reflect" else 0):
            continue
        numpy_pad: Any = np.pad
        indices = numpy_pad(np.arange(size, dtype=np.int32), (before, after), mode=mode)
        x = take(x, constant(indices), axis)
        begins[axis] = ends[axis] = 0
    return x, begins, ends


def _pad_as_computed(c: Context, x: Value, axes: list[int], mode: str) -> Value:
    pads = c.input(1)
    count = len(axes)
    before = [element(pads, axes.index(each)) if each in axes else int32(0) for each in range(rank_of(x))]
    after = [element(pads, count + axes.index(each)) if each in axes else int32(0) for each in range(rank_of(x))]
    if mode == "constant":
        # Negative padding removes elements.
        begin = [ops.maximum(ops.broadcasting_mul(each, int32(-1)), int32(0)) for each in before]
        end = [ops.add(as_scalar(dim_of(x, axis)), ops.minimum(each, int32(0))) for axis, each in enumerate(after)]
        x = ops.slice_(x, vector(begin), vector(end), int32s([1] * rank_of(x)))
        before, after = ([ops.maximum(each, int32(0)) for each in side] for side in (before, after))
    widths = cast(vector([each for pair in zip(before, after, strict=True) for each in pair]), np.uint32)
    return ops.pad(x, widths, _pad_value(c, x, mode), _MODES[mode])


TABLE: dict[str, Lowering] = {"Slice": _slice, "Pad": _pad}
