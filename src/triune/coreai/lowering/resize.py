"""Lowering of Resize: along each dimension in turn, a product with a matrix, or a gather of elements.

If sizes or scales are known only at run time, `resize_free` computes the coordinates then.
"""

from collections.abc import Sequence

import numpy as np

from triune.coreai.library import Value
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import take
from triune.coreai.lowering.resize_free import resize_free
from triune.coreai.lowering.values import as_dtype, constant, rank_of, shape_of
from triune.graph.axes import positive
from triune.graph.conversion.lowering.resize import extrapolated, mode_of, product_along
from triune.graph.conversion.problems import Refusal
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
    axes = [positive(each, rank_of(x)) for each in c.attributes.get("axes", range(rank_of(x)))]
    changes = _may_change(c, x, axes)
    if changes is not None:
        c.give(resize_free(c, x, axes, changes, mode))
        return
    for each in _resized_axes(c, x, axes):
        found = source_coordinates(c.attributes, each)
        if mode == "nearest":
            picked = nearest_indices(c.attributes, found).clip(0, each.size - 1)
            x = take(x, constant(picked), each.axis)
        else:
            weights = as_dtype(interpolation_matrix(c.attributes, each, found, mode), x)
            x = product_along(c.builder, x, constant(np.ascontiguousarray(weights.T)), each.axis)
        x = extrapolated(c, x, each, found)
    c.give(x)


def _may_change(c: Context, x: Value, axes: Sequence[int]) -> list[bool] | None:
    """For each of the dimensions `axes`, whether its size may change; None if all scales and new sizes, and the sizes
    of the dimensions that change, are known.
    """
    lengths = [shape_of(x)[axis] for axis in axes]
    found = [not _is_unchanged(c, index, axis) for index, axis in enumerate(axes)]
    operands = (1, 2, 3) if is_cropped(c.attributes) else (2, 3)
    is_known = all(c.constant(index) is not None for index in operands if c.has(index))
    is_fixed = all(length is not None or not changes for length, changes in zip(lengths, found, strict=True))
    return None if is_known and is_fixed else found


def _is_unchanged(c: Context, index: int, axis: int) -> bool:
    """Whether dimension `axis` is certain to keep its size; `index` is its position in scales and sizes."""
    if c.is_given(2):
        scales = c.constant(2)
        return scales is not None and bool(scales[index] == 1)
    if c.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    size = shape_of(c.input(0))[axis]
    sizes = c.constant(3) if c.is_given(3) else None
    if sizes is not None:
        return bool(sizes[index] == size)
    inferred = c.scope.values.shape(c.node.output[0])
    return size is not None and inferred is not None and inferred[axis] == size


def _resized_axes(c: Context, x: Value, axes: Sequence[int]) -> list[Axis]:
    """Describe those of the dimensions `axes` whose size changes. All sizes and scales must be known.

    Raises:
        Refusal: a dimension of the result is empty.
    """
    scales, sizes = c.constant(2), c.constant(3)
    roi = c.known(1, "the region of interest") if is_cropped(c.attributes) and c.is_given(1) else None
    # A dimension of unknown size keeps its size here, so that any number gives the same result: use 1.
    lengths = [shape_of(x)[axis] or 1 for axis in axes]
    found = resized_axes(c.attributes, axes, lengths, scales, sizes, roi)
    if any(each.target <= 0 for each in found):
        raise Refusal("an empty result: Core AI has no empty tensors")
    return found


TABLE: dict[str, Lowering] = {"Resize": _resize}
