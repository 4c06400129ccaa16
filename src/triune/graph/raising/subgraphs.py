"""Graphs inside others: bodies of If, Loop and Scan."""

from collections.abc import Iterator, Mapping, Sequence

from onnx import AttributeProto, NodeProto, ValueInfoProto, helper

from triune.graph.raising.graph import Graph, Tensor, elem_type


def own_outputs(graph: Graph, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs of a graph must be made in it, each by a node of its own."""
    made = {name for node in graph.nodes for name in node.output}
    own: list[Tensor] = []
    for output in outputs:
        if output.name in made:
            own.append(output)
        else:
            own.append(graph.op("Identity", output))
        made.discard(output.name)
    return own


def untyped(tensor: Tensor) -> ValueInfoProto:
    """A subgraph's input or output: shapes may change from round to round, but not that of a scalar."""
    return helper.make_tensor_value_info(tensor.name, elem_type(tensor.dtype), () if tensor.shape == () else None)


def all_nodes(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    """The nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from all_nodes(attribute.g.node)


def rename(nodes: Sequence[NodeProto], names: Mapping[str, str]) -> None:
    """Give values that the nodes make or read other names."""
    for node in all_nodes(nodes):
        for names_of in (node.input, node.output):
            for index, name in enumerate(names_of):
                if name in names:
                    names_of[index] = names[name]
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                for value in attribute.g.output:
                    value.name = names.get(value.name, value.name)
