"""Replace an If whose condition is constant by one of its branches."""

import functools
from collections import Counter

from onnx import GraphProto, ModelProto, NodeProto, helper

from triune.graph.names import Names, defined_names, rename
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, attributes_of, subgraphs_of


class Branches(GraphPass):
    """Given an If with a constant condition. Result: the nodes of the branch that is taken, in place of the If."""

    name = "branches"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace each If with a constant condition in `model`, in place, by its branch.

        A name in a branch that also occurs elsewhere gets the name of the If as a prefix.
        """
        _BranchReplacement(model).take(model.graph, None)
        return model


class _BranchReplacement:
    """Replaces each If with a constant condition in one model."""

    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self._names = Names(model.graph)

    @functools.cached_property
    def _defined(self) -> Counter[str]:
        """How many values of each name the model defines. Counted at the first use, before the model is changed."""
        own = [value.name for value in (*self._graph.input, *self._graph.initializer)]
        return Counter([*own, *defined_names(self._graph.node)])

    def take(self, graph: GraphProto, outer: Values | None) -> None:
        """Replace each If with a constant condition in a graph and its subgraphs by the branch that is taken."""
        values = Values(graph, outer)
        nodes: list[NodeProto] = []
        for node in graph.node:
            condition = values.constant(node.input[0]) if node.op_type == "If" else None
            if condition is None:
                for subgraph in subgraphs_of(node):
                    self.take(subgraph, values)
                nodes.append(node)
                continue
            branch: GraphProto = attributes_of(node)["then_branch" if condition.reshape(-1)[0] else "else_branch"]
            self.take(branch, values)
            self._make_unique(branch, node)
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

    def _make_unique(self, branch: GraphProto, node: NodeProto) -> None:
        own = [*defined_names(branch.node), *(tensor.name for tensor in branch.initializer)]
        if all(self._defined[name] == 1 for name in own):
            return
        prefix = self._names.prefix(node.name or next(filter(None, node.output), "If"))
        names = {name: f"{prefix}/{name}" for name in own}
        for value in (*branch.output, *branch.value_info, *branch.initializer):
            value.name = names.get(value.name, value.name)
        for inner in branch.node:
            rename(inner, names, prefix)
        self._defined.update(names.values())
