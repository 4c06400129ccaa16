"""Names of a model's values and nodes, and new ones that clash with none."""

import bisect
import functools
from collections.abc import Iterable, Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.values import subgraphs_of


class Names:
    """The names that a model has."""

    def __init__(self, model: ModelProto) -> None:
        """The names of values and nodes are collected when they are asked for: before the model is changed."""
        self._model = model
        self._given: set[str] = set()

    @functools.cached_property
    def _sorted(self) -> list[str]:
        return sorted(set(_names_of(self._model.graph)))

    def prefix(self, wish: str) -> str:
        """`wish`, or `wish` with a number: no name of the model starts with what is returned and a slash."""
        found, count = wish, 1
        while found in self._given or self._is_taken(f"{found}/"):
            count += 1
            found = f"{wish}.{count}"
        self._given.add(found)
        return found

    def _is_taken(self, start: str) -> bool:
        index = bisect.bisect_left(self._sorted, start)
        return index < len(self._sorted) and self._sorted[index].startswith(start)


def defined_names(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """The names of the values that nodes and the graphs within them define."""
    for node in nodes:
        yield from (name for name in node.output if name)
        for graph in subgraphs_of(node):
            yield from (value.name for value in graph.input)
            yield from (tensor.name for tensor in graph.initializer)
            yield from (tensor.values.name for tensor in graph.sparse_initializer)
            yield from defined_names(graph.node)


def rename(node: NodeProto, names: Mapping[str, str], prefix: str) -> None:
    """Give every value in `node` and the graphs within it its name of `names`, and every node `prefix` before its own.

    A value that `names` lacks keeps its name.
    """
    if node.name:
        node.name = f"{prefix}/{node.name}"
    for group in (node.input, node.output):
        for index, name in enumerate(group):
            group[index] = names.get(name, name)
    for graph in subgraphs_of(node):
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = names.get(value.name, value.name)
        for sparse in graph.sparse_initializer:
            sparse.values.name = names.get(sparse.values.name, sparse.values.name)
        for inner in graph.node:
            rename(inner, names, prefix)


def _names_of(graph: GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield value.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
    for node in graph.node:
        yield node.name
        yield from node.input
        yield from node.output
        for inner in subgraphs_of(node):
            yield from _names_of(inner)
