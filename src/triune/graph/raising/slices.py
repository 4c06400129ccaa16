"""Read and replace slices of tensors. Starts, ends and steps are INT64 vectors with an element for each axis, as in
ONNX.
"""

from collections.abc import Sequence

import numpy as np

from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType

LARGEST = np.iinfo(np.int64).max
"""As the end of a slice, this means the end of the axis."""


def slice_of(graph: Graph, x: Tensor, starts: Tensor, ends: Tensor, steps: Tensor) -> Tensor:
    """Select a slice of `x`."""
    return graph.op("Slice", x, starts, ends, graph.ints(*range(x.rank)), steps)


def replaced(
    graph: Graph, x: Tensor, update: Tensor, starts: Tensor, ends: Tensor, steps: Tensor, partial: Sequence[int]
) -> Tensor:
    """Copy `x` with a slice replaced by `update`. `partial` are the axes on which the slice may select only a part."""
    if not partial:
        return update
    # The common case is writing new rows to a cache: concatenate the part before the slice, the update, and the part
    # after it.
    if len(partial) == 1 and steps.constant is not None and int(steps.constant[partial[0]]) == 1:
        return _replaced_along(graph, x, update, starts, ends, partial[0])
    shape = graph.shape_of(x)
    count = graph.op("ReduceProd", shape, keepdims=0)
    positions = graph.op("Range", graph.constant(0, DType.INT64), count, graph.constant(1, DType.INT64))
    grid = graph.op("Reshape", positions, shape, shape=x.shape)
    chosen = graph.reshape(slice_of(graph, grid, starts, ends, steps), -1)
    flat = graph.op("ScatterElements", graph.reshape(x, -1), chosen, graph.reshape(update, -1), axis=0)
    return graph.op("Reshape", flat, shape)


def _replaced_along(graph: Graph, x: Tensor, update: Tensor, starts: Tensor, ends: Tensor, axis: int) -> Tensor:
    at = graph.constant(axis, DType.INT64)
    start, end = (graph.unsqueeze(graph.op("Gather", each, at, axis=0), 0) for each in (starts, ends))
    axes = graph.ints(axis)
    before = graph.op("Slice", x, graph.ints(0), start, axes)
    after = graph.op("Slice", x, end, graph.ints(LARGEST), axes)
    return graph.op("Concat", before, update, after, axis=axis)
