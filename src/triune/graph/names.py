"""Make new names for values and nodes that clash with no name in a model, and rename values."""

import bisect
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

from onnx import GraphProto, NodeProto

from triune.graph.values import subgraphs_of


class Names:
    """Makes new names that differ from all names in a graph and its subgraphs."""

    def __init__(self, graph: GraphProto) -> None:
        """The names in use are collected at the first call of `prefix` or `value`. This call must come before the graph
        is changed.
        """
        self._graph = graph
        self._given: set[str] = set()

    @functools.cached_property
    def _sorted(self) -> list[str]:
        return sorted(set(_names_of(self._graph)))

    def prefix(self, wish: str) -> str:
        """A new prefix for names: `wish`, or `wish` with a number, such that no name begins with the prefix and a
        slash.
        """
        return self._first(wish, lambda found: self._next(f"{found}/").startswith(f"{found}/"))

    def value(self, wish: str) -> str:
        """A new name: `wish`, or `wish` with a number, such that no value and no node of the model has it."""
        return self._first(wish, lambda found: self._next(found) == found)

    def _first(self, wish: str, is_taken: Callable[[str], bool]) -> str:
        found, count = wish, 1
        while found in self._given or is_taken(found):
            count += 1
            found = f"{wish}.{count}"
        self._given.add(found)
        return found

    def _next(self, start: str) -> str:
        """The first name in use that is `start` or comes after it in alphabetical order; "" if there is none."""
        index = bisect.bisect_left(self._sorted, start)
        return self._sorted[index] if index < len(self._sorted) else ""


def defined_names(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Yield the names of the values that nodes and their subgraphs define."""
    for node in nodes:
        yield from (name for name in node.output if name)
        for graph in subgraphs_of(node):
            yield from (value.name for value in graph.input)
            yield from (tensor.name for tensor in graph.initializer)
            yield from (tensor.values.name for tensor in graph.sparse_initializer)
            yield from defined_names(graph.node)


def rename(node: NodeProto, names: Mapping[str, str], prefix: str) -> None:
    """Rename the values in `node` and its subgraphs by `names`, from old to new, and put `prefix` before each node's
    name.

    A value that is not in `names` keeps its name.
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


def rename_values(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Rename values by `names`, from old to new, in all nodes of a graph and in the subgraphs that read these values.

    The inputs, outputs and initializers of `graph` itself keep their names.
    """
    for node in graph.node:
        for ends in (node.input, node.output):
            for position, name in enumerate(ends):
                ends[position] = names.get(name, name)
        for inner in subgraphs_of(node):
            hidden = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
            seen = {name: other for name, other in names.items() if name not in hidden}
            rename_values(inner, seen)
            for value in inner.output:
                value.name = seen.get(value.name, value.name)


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
