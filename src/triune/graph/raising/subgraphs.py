"""Subgraphs: the branches of If, and the bodies of Loop and Scan."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from onnx import AttributeProto, NodeProto, ValueInfoProto, helper

from triune.core.errors import InvalidArgumentError
from triune.graph.raising.graph import Graph, Tensor, elem_type
from triune.graph.raising.types import DType

Written: TypeAlias = tuple[Graph, Sequence[Tensor]]
"""A subgraph under construction, and the values that it returns."""


def put_if(graph: Graph, prefix: str, predicate: Tensor, then: Written, other: Written) -> list[Tensor]:
    """Add an If to `graph`. Its results have the types of the outputs of `then`.

    Args:
        graph: the graph that the node is added to.
        prefix: the prefix of the node's name.
        predicate: a bool scalar.
        then: the branch that runs if `predicate` is true.
        other: the branch that runs if it is false.

    Raises:
        InvalidArgumentError: the branches return different numbers of values.
    """
    yes, no = (_own_outputs(*each) for each in (then, other))
    if len(yes) != len(no):
        raise InvalidArgumentError(f"its blocks have {len(yes)} and {len(no)} outputs")
    no = [other[0].cast(given, want.dtype) for given, want in zip(no, yes, strict=True)]
    graph.prefix = prefix
    branches = {
        name: inner.proto(f"{prefix}/{name}", [], [untyped(each) for each in outputs])
        for name, inner, outputs in (("then_branch", then[0], yes), ("else_branch", other[0], no))
    }
    return graph.ops("If", [predicate], [each.dtype for each in yes], **branches)


def put_loop(
    graph: Graph, prefix: str, go_on: Tensor, start: Sequence[Tensor], body: Written, inputs: Sequence[Tensor]
) -> list[Tensor]:
    """Add a Loop to `graph`. Its results have the types of `start`.

    Args:
        graph: the graph that the node is added to.
        prefix: the prefix of the node's name.
        go_on: a bool scalar: whether there is a first iteration.
        start: the values of the loop's variables before the first iteration.
        body: an iteration. It returns a bool of one element, whether to go on, and then the variables' new values.
        inputs: the tensors of `body` that hold the variables at the begin of an iteration.
    """
    inner, (again, *ended) = body
    ended = [inner.cast(given, want.dtype) for given, want in zip(ended, start, strict=True)]
    outputs = _own_outputs(inner, [inner.scalar(inner.cast(again, DType.BOOL)), *ended])
    graph.prefix = prefix
    counter = Tensor(graph.root.fresh(f"{prefix}/iteration"), DType.INT64, ())
    going = Tensor(graph.root.fresh(f"{prefix}/going"), DType.BOOL, ())
    proto = inner.proto(
        f"{prefix}/body",
        [untyped(each) for each in (counter, going, *inputs)],
        [untyped(each) for each in outputs],
    )
    return graph.ops("Loop", [None, go_on, *start], [each.dtype for each in start], body=proto)


def put_states(states: dict[str, Tensor], names: Sequence[str], results: Sequence[Tensor]) -> Sequence[Tensor]:
    """Store the last results as the new values of the states `names`. Returns the other results."""
    count = len(results) - len(names)
    for name, value in zip(names, results[count:], strict=True):
        states[name] = Tensor(value.name, value.dtype, states[name].shape)
    return results[:count]


def _own_outputs(graph: Graph, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Make each output by a node of the subgraph itself, as ONNX demands: an Identity where it is not."""
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
    """A subgraph's input or output without a shape, which may change between iterations, unless it is a scalar."""
    return helper.make_tensor_value_info(tensor.name, elem_type(tensor.dtype), () if tensor.shape == () else None)


def all_nodes(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    """The nodes, and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from all_nodes(attribute.g.node)


def rename(nodes: Sequence[NodeProto], names: Mapping[str, str]) -> None:
    """Rename values that the nodes write or read."""
    for node in all_nodes(nodes):
        for names_of in (node.input, node.output):
            for index, name in enumerate(names_of):
                if name in names:
                    names_of[index] = names[name]
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                for value in attribute.g.output:
                    value.name = names.get(value.name, value.name)
