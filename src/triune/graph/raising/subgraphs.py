"""Build If and Loop nodes, whose branches and bodies are subgraphs, and rename values in subgraphs."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from onnx import AttributeProto, NodeProto, ValueInfoProto, helper

from triune.core.errors import InvalidArgumentError
from triune.graph.raising.graph import Graph, Tensor, elem_type
from triune.graph.raising.types import DType
from triune.graph.values import nodes_within

Subgraph: TypeAlias = tuple[Graph, Sequence[Tensor]]
"""A subgraph, and the values that are to be its outputs."""


def put_if(graph: Graph, prefix: str, predicate: Tensor, then: Subgraph, other: Subgraph) -> list[Tensor]:
    """Add an If to `graph`; returns its outputs, which have the types of the outputs of `then`.

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
    graph: Graph, prefix: str, go_on: Tensor, start: Sequence[Tensor], body: Subgraph, inputs: Sequence[Tensor]
) -> list[Tensor]:
    """Add a Loop to `graph`; returns the final values of the loop's variables, which have the types of `start`.

    Args:
        graph: the graph that the node is added to.
        prefix: the prefix of the node's name.
        go_on: a bool scalar, whether to run the first iteration.
        start: the values of the loop's variables before the first iteration.
        body: one iteration, with the outputs: a bool of one element, whether to go on, then the new values of the
            variables.
        inputs: the tensors that `body` reads for the current values of the variables.
    """
    inner, (go_on_after, *new_values) = body
    new_values = [inner.cast(given, want.dtype) for given, want in zip(new_values, start, strict=True)]
    outputs = _own_outputs(inner, [inner.scalar(inner.cast(go_on_after, DType.BOOL)), *new_values])
    graph.prefix = prefix
    counter = Tensor(graph.root.fresh(f"{prefix}/iteration"), DType.INT64, ())
    iteration_condition = Tensor(graph.root.fresh(f"{prefix}/iteration_condition"), DType.BOOL, ())
    proto = inner.proto(
        f"{prefix}/body",
        [untyped(each) for each in (counter, iteration_condition, *inputs)],
        [untyped(each) for each in outputs],
    )
    return graph.ops("Loop", [None, go_on, *start], [each.dtype for each in start], body=proto)


def put_states(states: dict[str, Tensor], names: Sequence[str], results: Sequence[Tensor]) -> Sequence[Tensor]:
    """Store the last results as the new values of the states `names`; returns the other results."""
    count = len(results) - len(names)
    for name, value in zip(names, results[count:], strict=True):
        states[name] = Tensor(value.name, value.dtype, states[name].shape)
    return results[:count]


def _own_outputs(graph: Graph, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Add an Identity for each output that no node of the subgraph itself computes, since ONNX requires one."""
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
    """Describe an input or output of a subgraph without its shape, which may change between iterations; scalars keep
    theirs.
    """
    return helper.make_tensor_value_info(tensor.name, elem_type(tensor.dtype), () if tensor.shape == () else None)


def rename(nodes: Sequence[NodeProto], names: Mapping[str, str]) -> None:
    """Rename values in nodes and their subgraphs."""
    for node in nodes_within(nodes):
        for names_of in (node.input, node.output):
            for index, name in enumerate(names_of):
                if name in names:
                    names_of[index] = names[name]
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                for value in attribute.g.output:
                    value.name = names.get(value.name, value.name)
