"""Interpolation on grids and at coordinates."""

import itertools
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreai.raising.given import Given
from triune.coreai.raising.region import Raise
from triune.coreai.raising.shaping import declared
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType

_FP32 = DType.FP32


def _interpolate(graph: Graph, given: Given) -> Tensor:
    """Sample at the coordinate (index + 0.5 - offset) / scale - 0.5, clamped to the image, axis by axis.

    ONNX's Resize is used if it computes the same.
    """
    x, mode = given["input"], _mode(given)
    resized = _resized(graph, given, mode)
    if resized is not None:
        return resized
    sizes = declared(graph, given, given["output_shape"])
    result = graph.cast(x, _FP32)
    scales, offsets = (graph.cast(given[name], _FP32) for name in ("scale", "offset"))
    for axis in range(x.rank):
        if _is_same(given, axis):
            continue
        size, scale, offset = (_one(graph, each, axis) for each in (sizes, scales, offsets))
        places = graph.op("Range", graph.constant(0, DType.INT64), size, graph.constant(1, DType.INT64))
        middle = graph.op("Add", graph.cast(places, _FP32), graph.like(0.5, scale))
        coordinates = graph.op("Div", graph.op("Sub", middle, offset), scale)
        coordinates = graph.op("Sub", coordinates, graph.like(0.5, scale))
        limit = graph.cast(graph.op("Sub", graph.scalar(graph.dim(x, axis)), graph.constant(1, DType.INT64)), _FP32)
        coordinates = graph.op("Min", graph.op("Max", coordinates, graph.like(0, scale)), limit)
        result = _along(graph, result, axis, x.rank, coordinates, limit, mode)
    return result


def _along(graph: Graph, x: Tensor, axis: int, rank: int, coordinates: Tensor, limit: Tensor, mode: str) -> Tensor:
    if mode == "nearest_neighbor":
        return graph.op("Gather", x, graph.cast(graph.op("Round", coordinates), DType.INT64), axis=axis)
    low = graph.op("Floor", coordinates)
    high = graph.op("Min", graph.op("Add", low, graph.like(1, low)), limit)
    weight = graph.reshape(graph.op("Sub", coordinates, low), *(-1 if each == axis else 1 for each in range(rank)))
    parts = [graph.op("Gather", x, graph.cast(place, DType.INT64), axis=axis) for place in (low, high)]
    return graph.op("Add", parts[0], graph.op("Mul", graph.op("Sub", parts[1], parts[0]), weight))


def _resized(graph: Graph, given: Given, mode: str) -> Tensor | None:
    """Write the operation as a linear Resize; None if that would not sample at the same points.

    Resize samples at the same points if only the last two axes change, all sizes are known, and the points are those of
    half_pixel or of align_corners.
    """
    x = given["input"]
    scale, offset = given["scale"].constant, given["offset"].constant
    sizes = given.result().shape
    if mode != "linear" or scale is None or offset is None or sizes is None or x.shape is None:
        return None
    have = np.array([size or 0 for size in x.shape], np.float64)
    want = np.array([size or 0 for size in sizes], np.float64)
    moved = [axis for axis in range(x.rank) if not _is_same(given, axis)]
    if not have.all() or not want.all() or not moved or not set(moved) <= {x.rank - 2, x.rank - 1}:
        return None
    kind = ""
    if not offset.any() and np.allclose(scale, want / have, rtol=1e-6):
        kind = "half_pixel"
    elif np.allclose(scale * np.maximum(have - 1, 1), np.where(have > 1, want - 1, scale), rtol=1e-6) and np.allclose(
        offset, 0.5 * (1 - scale), rtol=1e-5, atol=1e-6
    ):
        kind = "align_corners"
    if not kind:
        return None
    target = graph.ints(*(int(size) for size in want))
    return graph.op("Resize", x, None, None, target, mode="linear", coordinate_transformation_mode=kind)


def _is_same(given: Given, axis: int) -> bool:
    """Whether it is known that interpolation does not change an axis."""
    scale, offset, sizes = given["scale"].constant, given["offset"].constant, given["output_shape"].constant
    size = given["input"].size(axis)
    return (
        scale is not None
        and offset is not None
        and float(scale[axis]) == 1
        and float(offset[axis]) == 0
        and (size is None or sizes is None or int(sizes[axis]) == size)
    )


def _one(graph: Graph, vector: Tensor, axis: int) -> Tensor:
    return graph.op("Gather", vector, graph.constant(axis, DType.INT64), axis=0, shape=())


def _interpolate_coordinates(graph: Graph, given: Given) -> Tensor:
    """Interpolate linearly in all dimensions: add up the 2^n corners around each point, by their weights."""
    x, mode = graph.cast(given["input"], _FP32), _mode(given)
    count = x.rank
    limits = graph.op("Sub", graph.cast(graph.shape_of(given["input"]), _FP32), graph.constant([1.0] * count, _FP32))
    points = graph.op("Min", graph.op("Max", graph.cast(given["coords"], _FP32), graph.constant(0, _FP32)), limits)
    if mode == "nearest_neighbor":
        return graph.op("GatherND", x, graph.cast(graph.op("Round", points), DType.INT64))
    low = graph.op("Floor", points)
    weight = graph.op("Sub", points, low)
    total: Tensor | None = None
    for corner in itertools.product((0.0, 1.0), repeat=count):
        at = graph.constant(np.array(corner), _FP32)
        place = graph.op("Min", graph.op("Add", low, at), limits)
        # The weight of a corner is a product with one factor for each axis: `weight` for the upper corner on this axis,
        # 1 - `weight` for the lower one.
        near = graph.op("Abs", graph.op("Sub", graph.constant(1 - np.array(corner), _FP32), weight))
        part = graph.op("Mul", graph.op("GatherND", x, graph.cast(place, DType.INT64)), _product(graph, near))
        total = part if total is None else graph.op("Add", total, part)
    if total is None:
        raise UnsupportedError("coordinates in a scalar")
    return total


def _product(graph: Graph, near: Tensor) -> Tensor:
    return graph.op("ReduceProd", near, graph.ints(-1), keepdims=0)


def _mode(given: Given) -> str:
    mode = given.word("interpolation_mode")
    if mode not in ("linear", "nearest_neighbor"):
        raise UnsupportedError(f"the mode '{mode}' is not known")
    return mode


TABLE: Mapping[str, Raise] = MappingProxyType(
    {"interpolate": _interpolate, "interpolate_coordinates": _interpolate_coordinates}
)
