"""Branches whose condition is known."""

from onnx import GraphProto, ModelProto, NodeProto, helper

from triune.graph.values import Values, attributes_of, subgraphs_of


class Branches:
    """Given an If with a constant condition. Result: the nodes of the branch that it takes."""

    name = "branches"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Names within a branch are unique in the model: ONNX lets nothing shadow an outer name."""
        _take(model.graph, None)
        return model


def _take(graph: GraphProto, outer: Values | None) -> None:
    values = Values(graph, outer)
    nodes: list[NodeProto] = []
    for node in graph.node:
        condition = values.constant(node.input[0]) if node.op_type == "If" else None
        if condition is None:
            for subgraph in subgraphs_of(node):
                _take(subgraph, values)
            nodes.append(node)
            continue
        branch: GraphProto = attributes_of(node)["then_branch" if condition.reshape(-1)[0] else "else_branch"]
        _take(branch, values)
        graph.initializer.extend(branch.initializer)
        graph.value_info.extend(branch.value_info)
        nodes.extend(branch.node)
        nodes.extend(
            helper.make_node("Identity", [inner.name], [name])
            for inner, name in zip(branch.output, node.output, strict=True)
            if name
        )
    if len(nodes) != len(graph.node) or any(a is not b for a, b in zip(nodes, graph.node, strict=True)):
        del graph.node[:]
        graph.node.extend(nodes)
