"""Operations that reorder, reshape or repeat elements; ranges and shapes."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import computed, int64
from triune.coreai.raising.region import Raise
from triune.graph.raising.graph import Graph, Shape, Tensor
from triune.graph.raising.types import DType


def declared(graph: Graph, given: Given, sizes: Tensor) -> Tensor:
    """The shape of the first result: a constant if it is declared completely, else the computed `sizes`."""
    shape: Shape | None = given.result().shape
    if shape is not None and None not in shape:
        return graph.ints(*(size for size in shape if size is not None))
    return int64(graph, sizes)


def _reshape(graph: Graph, given: Given) -> Tensor:
    x, sizes = given["input"], given["new_shape"]
    shape = given.result().shape or ()
    unknown = [size for size in shape if size is None]
    if len(unknown) == 1 and 0 not in shape:
        # A single unknown size is written as -1, which ONNX computes from the other sizes.
        target = graph.ints(*(-1 if size is None else size for size in shape))
    else:
        target = declared(graph, given, sizes)
    return graph.op("Reshape", x, target, allowzero=int(0 in shape))


def _transpose(graph: Graph, given: Given) -> Tensor:
    x = given["input"]
    return graph.op("Transpose", x, perm=given.axes("permutation")) if x.rank else x


def _expand_dims(graph: Graph, given: Given) -> Tensor:
    axes = given.axes("axes", extra=len(given.ints("axes")))
    return graph.unsqueeze(given["input"], *axes)


def _shrink_dims(graph: Graph, given: Given) -> Tensor:
    return graph.squeeze(given["input"], *given.axes("axes"))


def _broadcast_to(graph: Graph, given: Given) -> Tensor:
    x = given["input"]
    if x.shape == given.result().shape and x.shape is not None and None not in x.shape:
        return x
    return graph.op("Expand", x, declared(graph, given, given["shape"]))


def _broadcast_in_dims(graph: Graph, given: Given) -> Tensor:
    x, sizes, axes = given["input"], int64(graph, given["dim_sizes"]), given.axes("axes")
    # Size 1 in an Expand leaves a dimension unchanged.
    ones = graph.ints(*[1] * x.rank)
    if sizes.constant is not None:
        known = np.ones(x.rank, np.int64)
        known[axes] = sizes.constant
        target = graph.constant(known, DType.INT64)
    else:
        target = graph.op("ScatterElements", ones, graph.ints(*axes), sizes, axis=0)
    return graph.op("Expand", x, target)


def _broadcast_shapes(graph: Graph, given: Given) -> Tensor:
    x, y = (int64(graph, given[name]) for name in ("shape_1", "shape_2"))
    sizes = [each.size(0) for each in (x, y)]
    known = [size for size in sizes if size is not None]
    if len(known) == 2:
        rank = max(known)
        x, y = (
            graph.concat(graph.ints(*[1] * (rank - size)), each) if size < rank else each
            for each, size in zip((x, y), known, strict=True)
        )
        is_one = graph.op("Equal", x, graph.ints(1), dtype=DType.BOOL)
        return graph.as_sizes(graph.op("Where", is_one, y, x, dtype=DType.INT64))
    # Broadcast two boolean tensors of these shapes, and take the shape of the result.
    one = graph.constant(1, DType.BOOL)
    return graph.op("Shape", graph.op("And", graph.op("Expand", one, x), graph.op("Expand", one, y)), dtype=DType.INT64)


def _get_shape(graph: Graph, given: Given) -> Tensor:
    return graph.shape_of(given["input"])


def _concat(graph: Graph, given: Given) -> Tensor:
    # Scalars count as vectors of one element.
    parts = [graph.reshape(part, 1) if part.rank == 0 else part for part in given.many("inputs")]
    parts = [Tensor(part.name, part.dtype, part.shape or (1,), part.constant) for part in parts]
    axis = given.integer("dimension") % (parts[0].rank or 1)
    if axis == 0 and all(part.constant is not None and part.constant.size <= 64 for part in parts):
        return graph.concat(*parts)
    return graph.op("Concat", *parts, axis=axis)


def _tile(graph: Graph, given: Given) -> Tensor:
    """Write Tile. The counts are for the last axes; axes before them are not repeated."""
    x, dims = given["input"], int64(graph, given["dims"])
    count = dims.size(0)
    if count is not None and count < x.rank:
        dims = graph.concat(graph.ints(*[1] * (x.rank - count)), dims)
    return graph.op("Tile", x, dims)


def _reverse(graph: Graph, given: Given) -> Tensor:
    x, axes = given["input"], given.axes("dims")
    if not axes:
        return x
    count = len(axes)
    ends = graph.ints(*[np.iinfo(np.int64).min + 1] * count)
    return graph.op("Slice", x, graph.ints(*[-1] * count), ends, graph.ints(*axes), graph.ints(*[-1] * count))


def _range(graph: Graph, given: Given) -> Tensor:
    parts = [graph.scalar(given[name]) for name in ("start", "stop", "step")]
    if parts[0].dtype is DType.FP16:
        return graph.op("Range", *(graph.cast(part, DType.FP32) for part in parts))
    return computed(graph, "Range", *parts)


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "broadcast_in_dims": _broadcast_in_dims,
        "broadcast_shapes": _broadcast_shapes,
        "broadcast_to": _broadcast_to,
        "concat": _concat,
        "expand_dims": _expand_dims,
        "get_shape": _get_shape,
        "range": _range,
        "reshape": _reshape,
        "reverse": _reverse,
        "shrink_dims": _shrink_dims,
        "tile": _tile,
        "transpose": _transpose,
    }
)
