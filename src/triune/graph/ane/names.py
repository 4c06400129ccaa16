"""The names that a graph reads."""

from onnx import GraphProto

from triune.graph.values import subgraphs_of


def names_read(graph: GraphProto) -> set[str]:
    """The names of the values that nodes of `graph`, its outputs, and the graphs within read."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for subgraph in subgraphs_of(node):
            names |= names_read(subgraph)
    return names
