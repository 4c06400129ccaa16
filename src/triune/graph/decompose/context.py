"""The context of a decomposition: the node that is replaced, and the builder of the nodes that replace it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from onnx import GraphProto, NodeProto

from triune.graph.builder import Builder
from triune.graph.values import Values


@dataclass(frozen=True, slots=True)
class Context:
    """The node to decompose, with types, shapes and constants of its inputs and outputs.

    Attributes:
        node: the node that is replaced.
        values: types, shapes and constants of the values in the node's scope.
        attributes: the attributes that the node has, without defaults.
        build: collects the nodes that replace the node.
        read: the names of all values that are read by nodes of the graph or are its outputs.
        graph: the graph that the node is in.
    """

    node: NodeProto
    values: Values
    attributes: Mapping[str, Any]
    build: Builder
    read: Collection[str]
    graph: GraphProto

    def input(self, index: int) -> str:
        """The name of an input; "" if it is omitted."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def output(self, index: int) -> str:
        """The name of an output; "" if it is omitted."""
        return self.node.output[index] if index < len(self.node.output) else ""

    def is_read(self, index: int) -> bool:
        """Whether an output of the node is read by another node, or is an output of the graph."""
        return self.output(index) != "" and self.output(index) in self.read

    def give(self, name: str, index: int = 0) -> None:
        """Set the node's output `index` to the value `name`."""
        if self.output(index):
            self.build.put("Identity", [name], [self.output(index)])


Decomposition: TypeAlias = Callable[[Context], bool]
"""A function that builds nodes to compute the node's outputs.

It returns False if it needs a type or shape that is not known, and raises Refusal if the node cannot be decomposed.
"""
