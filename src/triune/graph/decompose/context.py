"""The context of a decomposition: its node, and the builder of the nodes that replace it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from onnx import NodeProto

from triune.graph.builder import Builder
from triune.graph.values import Values


@dataclass(frozen=True, slots=True)
class Context:
    """The node to decompose, and what is known about its inputs and outputs.

    Attributes:
        node: the node that is replaced.
        values: types, shapes and constants of the values in the node's scope.
        attributes: the attributes that the node states, without defaults.
        build: collects the nodes that replace it.
        read: the names of the values that the graph's nodes and outputs read.
    """

    node: NodeProto
    values: Values
    attributes: Mapping[str, Any]
    build: Builder
    read: Collection[str]

    def input(self, index: int) -> str:
        """The name of an input; "" if it is omitted."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def output(self, index: int) -> str:
        """The name of an output; "" if it is omitted."""
        return self.node.output[index] if index < len(self.node.output) else ""

    def is_read(self, index: int) -> bool:
        """Whether a node or a graph output reads the output."""
        return self.output(index) != "" and self.output(index) in self.read

    def give(self, name: str, index: int = 0) -> None:
        """Make the value `name` the node's output `index`."""
        if self.output(index):
            self.build.put("Identity", [name], [self.output(index)])


Decomposition: TypeAlias = Callable[[Context], bool]
"""Writes nodes that compute the node's outputs.

Returns False and changes nothing while a type or shape that it needs is unknown. Raises Refusal if it is impossible.
"""
