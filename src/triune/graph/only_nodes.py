"""Find the operators of which a model has exactly one node. If a runtime's error names only such an operator, it is
about that node.
"""

from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.values import subgraphs_of


def only_nodes(model: ModelProto) -> Mapping[str, str]:
    """Maps each operator that occurs once in a model to its node's name, or to the node's first output if it has no
    name. An operator that occurs several times, or in a function, maps to "".
    """
    found: dict[str, str] = {}
    for node in _nodes(model.graph):
        is_first = node.op_type not in found
        found[node.op_type] = (node.name or next(filter(None, node.output), "")) if is_first else ""
    for function in model.functions:
        for node in function.node:
            found[node.op_type] = ""
    return {kind: name for kind, name in found.items() if name}


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for inner in subgraphs_of(node):
            yield from _nodes(inner)
