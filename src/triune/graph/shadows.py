"""Give values of subgraphs names that the graphs around them do not have."""

from collections.abc import Collection

from onnx import GraphProto

from triune.graph.names import Names, rename_values
from triune.graph.values import subgraphs_of


def rename_shadows(graph: GraphProto) -> None:
    """Rename the values of subgraphs that have the name of another value in a graph around them.

    ONNX's checker allows such names if the other value comes after the subgraph, but passes rename values by name.
    """
    names = Names(graph)
    # The first call of `value` collects the graph's names, which must be done before the graph is changed.
    names.value("shadow")
    _rename_within(graph, frozenset(), names)


def _rename_within(graph: GraphProto, outer: Collection[str], names: Names) -> None:
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output if name}
    new = {name: names.value(name) for name in sorted(own.intersection(outer))}
    if new:
        rename_values(graph, new)
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = new.get(value.name, value.name)
    known = frozenset(outer) | {new.get(name, name) for name in own}
    for node in graph.node:
        for inner in subgraphs_of(node):
            _rename_within(inner, known, names)
