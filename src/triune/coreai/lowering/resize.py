"""Resize: each dimension in turn is a product with a matrix, or picks elements.

The formulas are those of ONNX's standard (operator Resize) and of its reference evaluator. Where sizes are not known
the places are computed while the model runs (`resize_free`).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import expand, squeeze, take
from triune.coreai.lowering.resize_free import Free, resize_free
from triune.coreai.lowering.resize_places import Axis, Floats, cubic, is_cropped, picked_of, places_of
from triune.coreai.lowering.values import as_dtype, constant, is_float, like, positive, rank_of, shape_of, transpose
from triune.graph.conversion.problems import Refusal


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
        places = places_of(c, each)
        if mode == "nearest":
            picked = picked_of(c, places).clip(0, each.size - 1)
            x = take(x, constant(picked), each.axis)
        else:
            x = _apply(x, as_dtype(_matrix(c, each, places, mode), x), each.axis)
        x = _extrapolated(c, x, each, places)
    c.give(x)


def _free(c: Context, x: Value) -> list[Free] | None:
    """The dimensions that change, where not all is known of them now."""
    places = [positive(each, rank_of(x)) for each in c.attributes.get("axes", range(rank_of(x)))]
    scales, sizes = c.constant(2), c.constant(3)
    is_known = not (c.has(2) and scales is None) and not (c.has(3) and sizes is None)
    if is_known and all(shape_of(x)[place] is not None or _is_one(scales, index) for index, place in enumerate(places)):
        return None
    if is_cropped(c):
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
    roi = c.known(1, "the region of interest") if c.has(1) and is_cropped(c) else None
    # Of a free dimension, which stays as it is, any size will do.
    lengths = [shape_of(x)[place] or 1 for place in places]
    if sizes is not None and sizes.size:
        factors = [int(size) / length for size, length in zip(sizes, lengths, strict=True)]
        targets = [int(size) for size in sizes]
        policy = c.attributes.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(factors)
            targets = [math.floor(factor * length + 0.5) for length in lengths]
    elif scales is not None and scales.size:
        factors = [float(each) for each in scales]
        targets = [math.floor(length * factor) for length, factor in zip(lengths, factors, strict=True)]
    else:
        raise Refusal("neither scales nor sizes are given")
    found = [
        Axis(axis, lengths[index], targets[index], factors[index])
        if roi is None
        else Axis(
            axis, lengths[index], targets[index], factors[index], float(roi[index]), float(roi[index + len(places)])
        )
        for index, axis in enumerate(places)
    ]
    if any(each.target <= 0 for each in found):
        raise Refusal("an empty result: Core AI has no empty tensors")
    return [each for each in found if each.scale != 1 or each.size != each.target or roi is not None]


def _apply(x: Value, matrix: NDArray[Any], place: int) -> Value:
    """A product along one dimension."""
    rank = rank_of(x)
    order = [*(each for each in range(rank) if each != place), place]
    turned = transpose(x, order)
    weights = constant(np.ascontiguousarray(matrix.T))
    if rank == 1:
        return squeeze(ops.batch_matmul(expand(turned, [0]), weights), [0])
    return transpose(ops.broadcasting_batch_matmul(turned, weights), [int(each) for each in np.argsort(order)])


def _matrix(c: Context, each: Axis, places: Floats, mode: str) -> Floats:
    """Of each element of the result the weights of all elements of the dimension."""
    base = np.ceil(places).astype(np.int64) - 1
    ratio = places - base
    scale = min(each.scale, 1.0) if c.attributes.get("antialias", 0) else 1.0
    reach = 1 if mode == "linear" else 2
    start = math.floor(-reach / scale) + 1
    offsets = np.arange(start, 2 - start)
    distance = np.abs((offsets[None, :] - ratio[:, None]) * scale)
    if mode == "linear":
        weights = np.clip(1 - distance, 0, 1)
    elif mode == "cubic":
        weights = cubic(distance, float(c.attributes.get("cubic_coeff_a", -0.75)))
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


def _extrapolated(c: Context, x: Value, each: Axis, places: Floats) -> Value:
    """What lies outside of the image has a value of its own."""
    if not is_cropped(c):
        return x
    inside = (places >= 0) & (places <= each.size - 1)
    if inside.all():
        return x
    form = [1] * rank_of(x)
    form[each.axis] = each.target
    value = like(x, c.attributes.get("extrapolation_value", 0.0))
    return ops.broadcasting_where(constant(inside.reshape(form)), x, value)


TABLE: dict[str, Lowering] = {"Resize": _resize}
