"""Finds the value behind a chain of Identity nodes."""

from onnx import GraphProto, NodeProto


def behind_identities(graph: GraphProto, name: str) -> tuple[str, NodeProto | None]:
    """Find the value that Identity nodes copy to `name`: its name, and the node of the graph that computes it.

    The name is `name` itself if no Identity computes it. The node is None for an input, an initializer, or a value of a
    graph around this one.
    """
    makers = {output: node for node in graph.node for output in node.output}
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    return name, makers.get(name)
