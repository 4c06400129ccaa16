"""Names of a model's values and nodes, and new ones that clash with none."""

from collections.abc import Iterable, Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.values import subgraphs_of


class Names:
    """The names that a model has."""

    def __init__(self, model: ModelProto) -> None:
        """Collects the names of all values and nodes, those of inner graphs included."""
        self._taken: set[str] = set()
        for name in _names_of(model.graph):
            self._taken.add(name)
            # With "a/b/c" the prefixes "a" and "a/b" are taken too.
            self._taken.update(name[:index] for index, letter in enumerate(name) if letter == "/")

    def prefix(self, wish: str) -> str:
        """`wish`, or `wish` with a number: no name of the model starts with what is returned and a slash."""
        found, count = wish, 1
        while found in self._taken:
            count += 1
            found = f"{wish}.{count}"
        self._taken.add(found)
        return found


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
