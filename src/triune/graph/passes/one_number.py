"""Give one rank to values of If and Loop that have shape [] in one branch or step, and [1] in another."""

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

from triune.graph.builder import Builder
from triune.graph.names import Names
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, attributes_of, subgraphs_of


class OneNumber(GraphPass):
    """Given outputs of If, or states of Loop, of one element but with different shapes, [] and [1]. Result: one shape.

    In ONNX the rank may depend on which branch is taken, and on the number of steps; PaddlePaddle and PyTorch export
    such models. In programs of Apple's runtimes every value has a fixed rank.
    """

    name = "one-number"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Reshape values of shape [] and [1] of If and Loop in `model`, in place, to one shape.

        The shapes of `model` must have been inferred (`Infer`).
        """
        _unify(model.graph, None, Names(model.graph))
        return model


def give_scalars(graph: GraphProto) -> None:
    """Make the iteration number and the condition scalars in the body of each Loop, as in ONNX's standard.

    Bodies may declare them as [1], as tf2onnx does. Their consumers then read them reshaped to [1]. Run this before
    shape inference, which gives the body the shapes of the Loop's operands.
    """
    _give_scalars(graph, Names(graph))


def _give_scalars(graph: GraphProto, names: Names) -> None:
    for node in graph.node:
        for body in subgraphs_of(node):
            _give_scalars(body, names)
            if node.op_type != "Loop" or node.domain not in ("", "ai.onnx"):
                continue
            values, build = Values(body), Builder(names.prefix(f"{node.name or node.output[0]}/one-number"))
            for value in body.input[:2]:
                rank = values.rank(value.name)
                if rank:
                    given = build.name()
                    build.put("Reshape", [given, build.constant(np.ones(rank, np.int64))], [value.name])
                    value.name = given
                    _declare(value, 0)
            if build.nodes:
                nodes = [NodeProto.FromString(each.SerializeToString()) for each in (*build.nodes, *body.node)]
                del body.node[:]
                body.node.extend(nodes)


def _unify(graph: GraphProto, outer: Values | None, names: Names) -> None:
    values = Values(graph, outer)
    nodes: list[NodeProto] = []
    for node in graph.node:
        for inner in subgraphs_of(node):
            _unify(inner, values, names)
        if node.op_type == "If" and node.domain in ("", "ai.onnx"):
            _unify_branches(graph, node, values, names)
        elif node.op_type == "Loop" and node.domain in ("", "ai.onnx"):
            nodes += _unify_loop(node, values, names)
        nodes.append(node)
    if len(nodes) != len(graph.node):
        del graph.node[:]
        graph.node.extend(nodes)


def _unify_branches(graph: GraphProto, node: NodeProto, values: Values, names: Names) -> None:
    """Reshape the outputs of the branches of an If to the higher of their two ranks."""
    attributes = attributes_of(node)
    branches: list[GraphProto] = [attributes["then_branch"], attributes["else_branch"]]
    seen = [Values(branch, values) for branch in branches]
    for name, *outputs in zip(node.output, *(branch.output for branch in branches), strict=True):
        ranks = [_rank_of_number(each, output.name) for each, output in zip(seen, outputs, strict=True)]
        known = [each for each in ranks if each is not None]
        if len(known) < len(ranks) or len(set(known)) == 1:
            continue
        for branch, output, own in zip(branches, outputs, known, strict=True):
            if own != max(known):
                build = Builder(names.prefix(f"{name}/{branch.name}/one-number"))
                output.name = build.op("Reshape", output.name, build.constant(np.ones(max(known), np.int64)))
                branch.node.extend(build.nodes)
                _declare(output, max(known))
        for info in [info for info in graph.value_info if info.name == name]:
            graph.value_info.remove(info)


def _unify_loop(node: NodeProto, values: Values, names: Names) -> list[NodeProto]:
    """Reshape the initial value of each state of a Loop to the rank that it has after a step; returns the new nodes."""
    body: GraphProto = attributes_of(node)["body"]
    inner, added = Values(body, values), list[NodeProto]()
    for position in range(2, len(node.input)):
        start = _rank_of_number(values, node.input[position])
        after = _rank_of_number(inner, body.output[position - 1].name)
        if start is not None and after is not None and start != after:
            build = Builder(names.prefix(f"{body.input[position].name}/one-number"))
            shape = build.constant(np.ones(after, np.int64))
            node.input[position] = build.op("Reshape", node.input[position], shape)
            added += build.nodes
            _declare(body.input[position], after)
    return added


def _rank_of_number(values: Values, name: str) -> int | None:
    """The rank of a value that has one element; None for any other value."""
    shape = values.static_shape(name)
    return len(shape) if shape is not None and all(size == 1 for size in shape) else None


def _declare(value: ValueInfoProto, rank: int) -> None:
    """Declare the shape of a value as [1, ..., 1] of this rank."""
    value.type.tensor_type.ClearField("shape")
    value.type.tensor_type.shape.SetInParent()
    for _ in range(rank):
        value.type.tensor_type.shape.dim.add(dim_value=1)
