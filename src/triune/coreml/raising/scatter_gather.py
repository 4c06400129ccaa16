"""Gathers and scatters, and what happens for indices that are out of range.

Up to iOS 16 negative indices count from the end. From iOS 17 on they are out of range. An index out of range is an
error, with two exceptions for iOS 17 and later without `validate_indices`, where Core ML does not define the result:
here a scatter ignores such an index, and a gather counts a negative one from the end.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.coreml.raising.tensor_operation import filled
from triune.graph.raising.graph import Graph, Tensor

_REDUCTIONS = MappingProxyType(
    {"update": "none", "add": "add", "sub": "add", "mul": "mul", "div": "mul", "max": "max", "min": "min"}
)


# The operator sets in which negative indices count from the end.
_OLDER = frozenset({"CoreML3", "CoreML4", "CoreML5", "CoreML6"})


def _is_validated(given: Given) -> bool:
    """Whether indices out of range are errors, by the parameter `validate_indices`, which scatters from before iOS 17
    lack.
    """
    value = given.maybe_array("validate_indices")
    return value is not None and bool(value.all())


def _indices(graph: Graph, given: Given, size: Tensor) -> Tensor:
    """The indices as INT64. If negative ones are errors, they become `size`, which ONNX Runtime refuses."""
    indices = graph.cast(given["indices"], DType.INT64)
    if not _is_validated(given) or (indices.constant is not None and not (indices.constant < 0).any()):
        return indices
    is_negative = graph.op("Less", indices, graph.ints(0), dtype=DType.BOOL)
    return _with_shape(graph.op("Where", is_negative, size, indices, dtype=DType.INT64), indices)


def _with_shape(tensor: Tensor, like: Tensor) -> Tensor:
    return Tensor(tensor.name, tensor.dtype, like.shape)


def _may_ignore_indices(given: Given, indices: Tensor, limits: Tensor) -> bool:
    """Whether the scatter ignores indices out of range, and some indices may be out of range."""
    if given.opset in _OLDER or _is_validated(given):
        return False
    if indices.constant is None or limits.constant is None:
        return True
    return bool(((indices.constant < 0) | (indices.constant >= limits.constant)).any())


def _is_valid(graph: Graph, indices: Tensor, limits: Tensor) -> Tensor:
    at_least = graph.op("GreaterOrEqual", indices, graph.ints(0), dtype=DType.BOOL)
    return graph.op("And", at_least, graph.op("Less", indices, limits, dtype=DType.BOOL))


def _with_extra_slice(graph: Graph, data: Tensor, axis: int) -> Tensor:
    """Append a slice of zeros at the end of an axis. Updates that must be ignored are written there."""
    more = graph.op("Pad", data, graph.ints(0, 1), None, graph.ints(axis))
    shape = None if data.shape is None else tuple(None if at == axis else size for at, size in enumerate(data.shape))
    return Tensor(more.name, data.dtype, shape)


def _without_extra_slice(graph: Graph, result: Tensor, axis: int) -> Tensor:
    return graph.op("Slice", result, graph.ints(0), graph.ints(-1), graph.ints(axis))


def _gather(graph: Graph, given: Given) -> Tensor:
    """Write a gather along `axis`. The first `batch_dims` dimensions of x and of the indices are the same."""
    x, axis = given["x"], given.axis()
    indices = _indices(graph, given, graph.dim(x, axis))
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
    # The Transpose before moved `axis` next to the batch dimensions. Move the axes that were between them back.
    count = indices.rank - batch
    chosen, skipped = range(batch, batch + count), range(batch + count, batch + count + len(between))
    rest = range(skipped.stop, x.rank - 1 + count)
    return graph.op("Transpose", found, perm=[*range(batch), *skipped, *chosen, *rest])


def _gather_along_axis(graph: Graph, given: Given) -> Tensor:
    x, axis = given["x"], given.axis()
    return graph.op("GatherElements", x, _indices(graph, given, graph.dim(x, axis)), axis=axis)


def _gather_nd(graph: Graph, given: Given) -> Tensor:
    x, batch = given["x"], given.integer("batch_dims")
    depth = given["indices"].size(-1)
    if depth is None:
        raise UnsupportedError("the depth of the indices is only known when the program runs")
    limits = graph.concat(*(graph.dim(x, axis) for axis in range(batch, batch + depth)))
    return graph.op("GatherND", x, _indices(graph, given, limits), batch_dims=batch)


def _scattered(
    op_type: str, graph: Graph, data: Tensor, indices: Tensor, updates: Tensor, mode: str, **attributes: Any
) -> Tensor:
    """Write a scatter that puts updates into `data`, or adds, multiplies, ... them, once for each occurrence of an
    index.
    """
    if mode not in _REDUCTIONS:
        raise UnsupportedError(f"the mode '{mode}' is not known")
    if data.dtype is DType.FP16 and mode != "update":
        # ONNX Runtime does not add, multiply, ... updates in fp16: compute in fp32, which is also more exact.
        wide = [graph.cast(each, DType.FP32) for each in (data, updates)]
        return graph.cast(_scattered(op_type, graph, wide[0], indices, wide[1], mode, **attributes), data.dtype)
    if mode == "div":
        # Divide once by the product of all updates of an element: in integers, dividing by one update after the other
        # would round each time.
        ones = filled(graph, graph.shape_of(data), 1, data.dtype)
        product = graph.op(op_type, ones, indices, updates, reduction="mul", **attributes)
        return graph.op("Div", data, product)
    if mode == "sub":
        updates = graph.op("Neg", updates)
    return graph.op(op_type, data, indices, updates, reduction=_REDUCTIONS[mode], **attributes)


def _scatter(graph: Graph, given: Given) -> Tensor:
    """Write a scatter of slices of `data` along an axis, one for each index."""
    data, axis = given["data"], given.axis(of="data")
    indices = _indices(graph, given, graph.dim(data, axis))
    updates = graph.cast(given["updates"], data.dtype)
    sizes = [graph.dim(data, each) for each in range(data.rank)]
    sizes[axis] = graph.ints(-1)
    if indices.rank != 1:
        updates = graph.op("Reshape", updates, graph.concat(*sizes))
    column = graph.reshape(indices, *[-1 if each == axis else 1 for each in range(data.rank)])
    shape = graph.op("Shape", updates, dtype=DType.INT64)
    everywhere = graph.op("Expand", column, shape)
    if _may_ignore_indices(given, indices, graph.dim(data, axis)):
        return _scattered_ignoring(graph, data, everywhere, updates, given.text("mode"), axis)
    return _scattered("ScatterElements", graph, data, everywhere, updates, given.text("mode"), axis=axis)


def _scattered_ignoring(graph: Graph, data: Tensor, indices: Tensor, updates: Tensor, mode: str, axis: int) -> Tensor:
    """Write a scatter along an axis that ignores indices out of range."""
    size = graph.dim(data, axis)
    kept = graph.op("Where", _is_valid(graph, indices, size), indices, size, dtype=DType.INT64)
    result = _scattered("ScatterElements", graph, _with_extra_slice(graph, data, axis), kept, updates, mode, axis=axis)
    return _without_extra_slice(graph, result, axis)


def _scatter_along_axis(graph: Graph, given: Given) -> Tensor:
    data, axis = given["data"], given.axis(of="data")
    size = graph.dim(data, axis)
    indices, updates = _indices(graph, given, size), graph.cast(given["updates"], data.dtype)
    if _may_ignore_indices(given, indices, size):
        return _scattered_ignoring(graph, data, indices, updates, given.text("mode"), axis)
    return _scattered("ScatterElements", graph, data, indices, updates, given.text("mode"), axis=axis)


def _scatter_nd(graph: Graph, given: Given) -> Tensor:
    data, depth = given["data"], given["indices"].size(-1)
    if depth is None:
        raise UnsupportedError("the depth of the indices is only known when the program runs")
    limits = graph.concat(*(graph.dim(data, axis) for axis in range(depth)))
    indices, updates = _indices(graph, given, limits), graph.cast(given["updates"], data.dtype)
    mode = given.text("mode")
    if not _may_ignore_indices(given, indices, limits):
        return _scattered("ScatterND", graph, data, indices, updates, mode)
    # If one component of an index is out of range, the index's update is written to an extra slice at the end of the
    # first axis, which is cut off afterwards.
    valid = graph.cast(_is_valid(graph, indices, limits), DType.INT32)
    is_in_range = graph.cast(graph.op("ReduceMin", valid, graph.ints(-1), keepdims=1), DType.BOOL)
    nowhere = graph.concat(graph.dim(data, 0), graph.ints(*[0] * (depth - 1)))
    kept = graph.op("Where", is_in_range, indices, nowhere, dtype=DType.INT64)
    return _without_extra_slice(
        graph, _scattered("ScatterND", graph, _with_extra_slice(graph, data, 0), kept, updates, mode), 0
    )


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
