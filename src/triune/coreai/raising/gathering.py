"""Gathers and scatters."""

from collections.abc import Mapping
from types import MappingProxyType

from triune.core.errors import UnsupportedError
from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import computed, int64, is_float, wide
from triune.coreai.raising.region import Raise
from triune.graph.raising.graph import Graph, Tensor

_REDUCTIONS = MappingProxyType({"update": "none", "add": "add", "mul": "mul", "max": "max", "min": "min"})
_COMBINERS = MappingProxyType(
    {"coreai.add": "add", "coreai.mul": "mul", "coreai.maximum": "max", "coreai.minimum": "min"}
)


def _gather_along_axis(graph: Graph, given: Given) -> Tensor:
    return graph.op("GatherElements", given["input"], int64(graph, given["indices"]), axis=given.axis("axis"))


def _gather_nd(graph: Graph, given: Given) -> Tensor:
    """Write GatherND; or Gather, which is faster, if the indices are for one axis."""
    x, indices = given["input"], int64(graph, given["indices"])
    if indices.size(-1) == 1:
        return graph.op("Gather", x, graph.squeeze(indices, indices.rank - 1), axis=0)
    return graph.op("GatherND", x, indices)


def _scatter_along_axis(graph: Graph, given: Given) -> Tensor:
    x, updates, mode = given["input"], given["updates"], given.word("scatter_mode")
    indices, axis = int64(graph, given["indices"]), given.axis("axis")
    if mode == "sub":
        mode, updates = "add", computed(graph, "Neg", updates)
    elif mode == "div" and is_float(x):
        mode, updates = "mul", graph.op("Reciprocal", updates)
    if mode not in _REDUCTIONS:
        raise UnsupportedError(f"the mode '{mode}' on {x.dtype.value}")
    if mode == "update":
        return graph.op("ScatterElements", x, indices, updates, axis=axis)
    result = graph.op(
        "ScatterElements", wide(graph, x), indices, wide(graph, updates), axis=axis, reduction=_REDUCTIONS[mode]
    )
    return graph.cast(result, x.dtype)


def _scatter_nd(graph: Graph, given: Given) -> Tensor:
    x, updates, indices = given["input"], given["updates"], int64(graph, given["indices"])
    reduction = _reduction(given)
    if reduction == "none":
        return graph.op("ScatterND", x, indices, updates)
    result = graph.op("ScatterND", wide(graph, x), indices, wide(graph, updates), reduction=reduction)
    return graph.cast(result, x.dtype)


def _reduction(given: Given) -> str:
    """The `reduction` of ONNX's scatters that does what the operation's block does with the old value and the update,
    such as "add"; "none" if the block returns the update.
    """
    block = given.operation.regions[0].blocks[0]
    operations = list(block.operations)
    there, new = block.arguments
    if len(operations) == 1 and operations[0].operands[0] == new:
        return "none"
    name = operations[0].operation.name
    if len(operations) == 2 and name in _COMBINERS and {*operations[0].operands} == {there, new}:
        return _COMBINERS[name]
    raise UnsupportedError(f"an update by a block of {len(operations) - 1} operations, the first {name}")


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "gather_along_axis": _gather_along_axis,
        "gather_nd": _gather_nd,
        "scatter_along_axis": _scatter_along_axis,
        "scatter_nd": _scatter_nd,
    }
)
