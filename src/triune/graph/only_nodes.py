"""Find the operators of which a model has exactly one node. If a runtime's error names only such an operator, it is
about that node.
"""

from collections.abc import Mapping

from onnx import ModelProto

from triune.graph.values import nodes_within


def only_nodes(model: ModelProto) -> Mapping[str, str]:
    """Maps each operator that occurs once in a model to its node's name, or to the node's first output if it has no
    name. An operator that occurs several times, or in a function, maps to "".
    """
    found: dict[str, str] = {}
    for node in nodes_within(model.graph.node):
        is_first = node.op_type not in found
        found[node.op_type] = (node.name or next(filter(None, node.output), "")) if is_first else ""
    for function in model.functions:
        for node in function.node:
            found[node.op_type] = ""
    return {kind: name for kind, name in found.items() if name}
