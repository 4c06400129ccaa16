"""Raising of matrix products."""

from collections.abc import Mapping
from types import MappingProxyType

from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import computed
from triune.coreai.raising.region import Raise
from triune.graph.raising.graph import Graph, Tensor


def _batch_matmul(graph: Graph, given: Given) -> Tensor:
    return computed(graph, "MatMul", given["x"], given["y"])


TABLE: Mapping[str, Raise] = MappingProxyType(
    {"batch_matmul": _batch_matmul, "broadcasting_batch_matmul": _batch_matmul}
)
