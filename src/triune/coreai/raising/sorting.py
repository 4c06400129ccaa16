"""Raising of `sort`, `argsort` and `non_zero`."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import is_float, wide
from triune.coreai.raising.region import Raise
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType


def _order(graph: Graph, given: Given) -> tuple[Tensor, Tensor, int]:
    """Sort along an axis.

    ONNX's TopK is stable. NaN comes last in ascending and in descending order: the first sort treats it as infinite,
    and a second, stable sort by isnan moves it behind the infinities.

    Returns:
        the values in a type that can be sorted, the indices that sort them, and the axis.
    """
    x, axis = wide(graph, given["input"]), given.axis("dim")
    is_descending = given.flag("descending")
    size = graph.dim(x, axis)
    if not is_float(x):
        return x, _sorting_indices(graph, x, size, axis, not is_descending), axis
    is_none = graph.op("IsNaN", x, dtype=DType.BOOL)
    last = graph.like(-np.inf if is_descending else np.inf, x)
    known = graph.op("Where", is_none, last, x, dtype=x.dtype)
    places = _sorting_indices(graph, known, size, axis, not is_descending)
    none = graph.op("GatherElements", graph.cast(is_none, DType.INT32), places, axis=axis)
    behind = _sorting_indices(graph, none, size, axis, True)
    return x, graph.op("GatherElements", places, behind, axis=axis), axis


def _sorting_indices(graph: Graph, x: Tensor, size: Tensor, axis: int, is_ascending: bool) -> Tensor:
    dtypes = (x.dtype, DType.INT64)
    return graph.ops("TopK", [x, size], dtypes, axis=axis, largest=int(not is_ascending), sorted=1)[1]


def _sort(graph: Graph, given: Given) -> Tensor:
    x, places, axis = _order(graph, given)
    return graph.op("GatherElements", x, places, axis=axis)


def _argsort(graph: Graph, given: Given) -> Tensor:
    return _order(graph, given)[1]


def _non_zero(graph: Graph, given: Given) -> Tensor:
    """The indices of nonzero elements, (count, rank); ONNX's NonZero returns (rank, count)."""
    x = given["input"]
    return graph.op("Transpose", graph.op("NonZero", graph.cast(x, DType.BOOL), dtype=DType.INT64), perm=[1, 0])


TABLE: Mapping[str, Raise] = MappingProxyType({"argsort": _argsort, "non_zero": _non_zero, "sort": _sort})
