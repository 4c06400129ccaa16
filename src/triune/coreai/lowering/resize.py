"""Resize: each dimension in turn is a product with a matrix, or picks elements.

Where sizes are not known the places are computed while the model runs (`resize_free`).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import expand, squeeze, take
from triune.coreai.lowering.resize_free import Free, resize_free
from triune.coreai.lowering.values import as_dtype, constant, is_float, like, rank_of, shape_of, transpose
from triune.graph.axes import positive
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.resize import Axis, Floats, changed_of, is_cropped, matrix_of, picked_of, places_of


def _resize(c: Context) -> None:
    x = c.input(0)
    mode = c.attributes.get("mode", "nearest")
    if mode != "nearest" and not is_float(x):
        raise Refusal(f"{mode} interpolation of whole numbers; cast them to FLOAT")
    free = _free(c, x)
    if free is not None:
        c.give(resize_free(c, x, free, mode))
        return
    for each in _axes(c, x):
        places = places_of(c.attributes, each)
        if mode == "nearest":
            picked = picked_of(c.attributes, places).clip(0, each.size - 1)
            x = take(x, constant(picked), each.axis)
        else:
            x = _apply(x, as_dtype(matrix_of(c.attributes, each, places, mode), x), each.axis)
        x = _extrapolated(c, x, each, places)
    c.give(x)


def _free(c: Context, x: Value) -> list[Free] | None:
    """The dimensions that change, where not all is known of them now."""
    places = [positive(each, rank_of(x)) for each in c.attributes.get("axes", range(rank_of(x)))]
    scales, sizes = c.constant(2), c.constant(3)
    is_known = not (c.has(2) and scales is None) and not (c.has(3) and sizes is None)
    if is_known and all(shape_of(x)[place] is not None or _is_one(scales, index) for index, place in enumerate(places)):
        return None
    if is_cropped(c.attributes):
        raise Refusal("a region of an image of no fixed size is resized; fix it with --shape")
    scale = c.input(2) if c.has(2) and not c.is_empty(2) else None
    size = None if scale is not None else c.input(3)
    return [
        Free(place, scale, size, index)
        for index, place in enumerate(places)
        if not _is_one(scales, index) and not (sizes is not None and sizes.size and sizes[index] == shape_of(x)[place])
    ]


def _is_one(scales: NDArray[Any] | None, index: int) -> bool:
    return scales is not None and scales.size > 0 and bool(scales[index] == 1)


def _axes(c: Context, x: Value) -> list[Axis]:
    """The dimensions that change, all of them known."""
    places = [positive(each, rank_of(x)) for each in c.attributes.get("axes", range(rank_of(x)))]
    scales, sizes = c.constant(2), c.constant(3)
    roi = c.known(1, "the region of interest") if c.has(1) and is_cropped(c.attributes) else None
    # Of a free dimension, which stays as it is, any size will do.
    lengths = [shape_of(x)[place] or 1 for place in places]
    found = changed_of(c.attributes, places, lengths, scales, sizes, roi)
    if any(each.target <= 0 for each in found):
        raise Refusal("an empty result: Core AI has no empty tensors")
    return found


def _apply(x: Value, matrix: NDArray[Any], place: int) -> Value:
    """A product along one dimension."""
    rank = rank_of(x)
    order = [*(each for each in range(rank) if each != place), place]
    turned = transpose(x, order)
    weights = constant(np.ascontiguousarray(matrix.T))
    if rank == 1:
        return squeeze(ops.batch_matmul(expand(turned, [0]), weights), [0])
    return transpose(ops.broadcasting_batch_matmul(turned, weights), [int(each) for each in np.argsort(order)])


def _extrapolated(c: Context, x: Value, each: Axis, places: Floats) -> Value:
    """What lies outside of the image has a value of its own."""
    if not is_cropped(c.attributes):
        return x
    inside = (places >= 0) & (places <= each.size - 1)
    if inside.all():
        return x
    form = [1] * rank_of(x)
    form[each.axis] = each.target
    value = like(x, c.attributes.get("extrapolation_value", 0.0))
    return ops.broadcasting_where(constant(inside.reshape(form)), x, value)


TABLE: dict[str, Lowering] = {"Resize": _resize}
