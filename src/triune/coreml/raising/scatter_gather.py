"""Gathers and scatters. Indices out of range end the run with an error, whether they are to be validated or not."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.coreml.raising.graph import Graph, Tensor
from triune.coreml.raising.tensor_operation import filled

_REDUCTIONS = MappingProxyType(
    {"update": "none", "add": "add", "sub": "add", "mul": "mul", "div": "mul", "max": "max", "min": "min"}
)


def _indices(graph: Graph, given: Given) -> Tensor:
    return graph.cast(given["indices"], DType.INT64)


def _gather(graph: Graph, given: Given) -> Tensor:
    """Along an axis; the first `batch_dims` dimensions of x and the indices go together."""
    x, indices, axis = given["x"], _indices(graph, given), given.axis()
    batch = given.integer("batch_dims")
    if batch == 0:
        return graph.op("Gather", x, indices, axis=axis)
    if not 0 < batch <= min(axis, indices.rank):
        raise InvalidArgumentError(f"'batch_dims' is {batch} for axis {axis} and indices of {indices.rank} dimensions")
    between = list(range(batch, axis))
    perm = [*range(batch), axis, *between, *range(axis + 1, x.rank)]
    moved = graph.op("Transpose", x, perm=perm) if between else x
    found = graph.op("GatherND", moved, graph.unsqueeze(indices, indices.rank), batch_dims=batch)
    if not between:
        return found
    # What lay between the batch and the axis goes before the indices again.
    count = indices.rank - batch
    chosen, skipped = range(batch, batch + count), range(batch + count, batch + count + len(between))
    rest = range(skipped.stop, x.rank - 1 + count)
    return graph.op("Transpose", found, perm=[*range(batch), *skipped, *chosen, *rest])


def _gather_along_axis(graph: Graph, given: Given) -> Tensor:
    return graph.op("GatherElements", given["x"], _indices(graph, given), axis=given.axis())


def _gather_nd(graph: Graph, given: Given) -> Tensor:
    return graph.op("GatherND", given["x"], _indices(graph, given), batch_dims=given.integer("batch_dims"))


def _scattered(
    op_type: str, graph: Graph, data: Tensor, indices: Tensor, updates: Tensor, mode: str, **attributes: Any
) -> Tensor:
    """`data` with updates put in, added, multiplied, ... each index as often as it appears."""
    if mode not in _REDUCTIONS:
        raise UnsupportedError(f"the mode '{mode}' is not known")
    if data.dtype is DType.FP16 and mode != "update":
        # ONNX Runtime does not reduce fp16; the sum of many is the better for it.
        wide = [graph.cast(each, DType.FP32) for each in (data, updates)]
        return graph.cast(_scattered(op_type, graph, wide[0], indices, wide[1], mode, **attributes), data.dtype)
    if mode == "div":
        # One division by the product of all: exact for integers too.
        ones = filled(graph, graph.shape_of(data), 1, data.dtype)
        product = graph.op(op_type, ones, indices, updates, reduction="mul", **attributes)
        return graph.op("Div", data, product)
    if mode == "sub":
        updates = graph.op("Neg", updates)
    return graph.op(op_type, data, indices, updates, reduction=_REDUCTIONS[mode], **attributes)


def _scatter(graph: Graph, given: Given) -> Tensor:
    """Whole slices of `data` along an axis, one for each index."""
    data, indices, axis = given["data"], _indices(graph, given), given.axis(of="data")
    updates = graph.cast(given["updates"], data.dtype)
    sizes = [graph.dim(data, each) for each in range(data.rank)]
    sizes[axis] = graph.ints(-1)
    if indices.rank != 1:
        updates = graph.op("Reshape", updates, graph.concat(*sizes))
    column = graph.reshape(indices, *[-1 if each == axis else 1 for each in range(data.rank)])
    shape = graph.op("Shape", updates, dtype=DType.INT64)
    everywhere = graph.op("Expand", column, shape)
    return _scattered("ScatterElements", graph, data, everywhere, updates, given.text("mode"), axis=axis)


def _scatter_along_axis(graph: Graph, given: Given) -> Tensor:
    data, axis = given["data"], given.axis(of="data")
    updates = graph.cast(given["updates"], data.dtype)
    return _scattered("ScatterElements", graph, data, _indices(graph, given), updates, given.text("mode"), axis=axis)


def _scatter_nd(graph: Graph, given: Given) -> Tensor:
    data = given["data"]
    updates = graph.cast(given["updates"], data.dtype)
    return _scattered("ScatterND", graph, data, _indices(graph, given), updates, given.text("mode"))


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "gather": _gather,
        "gather_along_axis": _gather_along_axis,
        "gather_nd": _gather_nd,
        "scatter": _scatter,
        "scatter_along_axis": _scatter_along_axis,
        "scatter_nd": _scatter_nd,
    }
)
