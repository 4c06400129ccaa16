"""Remove Identity nodes and nodes whose results are not read, and turn Constant nodes into initializers."""

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from triune.graph.names import Names
from triune.graph.passes.run import GraphPass
from triune.graph.values import constant_tensor, subgraphs_of


class Tidy(GraphPass):
    """Given Constant nodes, Identity nodes and nodes whose results are not read. Result: initializers for the Constant
    nodes, and none of the others.

    An Identity whose result is an output of its graph stays.
    """

    name = "tidy"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Remove Identity nodes and unread nodes from `model`, in place. Its inputs and outputs stay."""
        _tidy(model.graph, {}, Names(model.graph))
        return model


def _tidy(graph: GraphProto, outer: dict[str, str], names: Names) -> set[str]:
    """Remove a graph's Identity nodes and nodes whose results are not read, and turn its Constant nodes into
    initializers.

    Args:
        graph: changed in place.
        outer: maps names of values that were replaced in the graphs around this one to the names that replace them.
        names: makes new names.

    Returns:
        the names that the graph reads but does not define.
    """
    renamed = dict(outer)
    outputs = {value.name for value in graph.output}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            tensor = constant_tensor(node)
            if tensor is not None:
                copy = TensorProto()
                copy.CopyFrom(tensor)
                copy.name = node.output[0]
                graph.initializer.append(copy)
                continue
        for index, name in enumerate(node.input):
            if name in renamed:
                node.input[index] = renamed[name]
        if node.op_type == "Identity" and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
            continue
        nodes.append(node)
    for value in graph.output:
        if value.name in outer:
            # This branch returns a value of an outer graph that another value has replaced: let an Identity return the
            # other value.
            given = names.value(f"{value.name}/given")
            nodes.append(NodeProto(op_type="Identity", input=[outer[value.name]], output=[given]))
            value.name = given
    needed = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if not any(name in needed for name in node.output if name):
            continue
        for subgraph in subgraphs_of(node):
            needed |= _tidy(subgraph, renamed, names)
        needed.update(name for name in node.input if name)
        kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    # Keep an initializer that is the default of an input: without it, a caller would have to give the input.
    kept_names = needed | {value.name for value in graph.input}
    used = [tensor for tensor in graph.initializer if tensor.name in kept_names]
    if len(used) != len(graph.initializer):
        copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in used]
        del graph.initializer[:]
        graph.initializer.extend(copies)
    infos = [info for info in graph.value_info if info.name in needed]
    if len(infos) != len(graph.value_info):
        del graph.value_info[:]
        graph.value_info.extend(infos)
    own = {name for node in graph.node for name in node.output}
    own.update(tensor.name for tensor in graph.initializer)
    own.update(value.name for value in graph.input)
    return needed - own
