"""Resize, one dimension after another, by a matrix product or by a gather of elements."""

from collections.abc import Mapping

import numpy as np

from triune.graph.axes import positive
from triune.graph.conversion.lowering.resize import extrapolated, mode_of, product_along
from triune.graph.conversion.resize import (
    interpolation_matrix,
    is_cropped,
    nearest_indices,
    resized_axes,
    source_coordinates,
)
from triune.metal.context import Context, Lowering
from triune.metal.library import from_numpy, mx


def _resize(c: Context) -> None:
    x, mode = c.input(0), mode_of(c)
    axes = [positive(each, x.ndim) for each in c.attributes.get("axes", range(x.ndim))]
    scales, sizes = (c.known(index, "the size of a Resize") if c.has(index) else None for index in (2, 3))
    region = c.known(1, "the region of interest") if is_cropped(c.attributes) and c.has(1) else None
    lengths = [x.shape[axis] for axis in axes]
    region = region if region is not None and region.size else None
    for each in resized_axes(c.attributes, axes, lengths, scales, sizes, region):
        found = source_coordinates(c.attributes, each)
        if mode == "nearest":
            picked = nearest_indices(c.attributes, found).clip(0, each.size - 1)
            x = mx.take(x, from_numpy(picked), each.axis)
        else:
            weights = interpolation_matrix(c.attributes, each, found, mode)
            x = product_along(c.builder, x, from_numpy(np.ascontiguousarray(weights.T)).astype(x.dtype), each.axis)
        x = extrapolated(c, x, each, found)
    c.give(x)


TABLE: Mapping[str, Lowering] = {"Resize": _resize}
