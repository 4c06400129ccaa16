"""What the conversion of a node is given, and what it may use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias

from numpy.typing import NDArray
from onnx import GraphProto, NodeProto

from triune.graph.conversion.lowering.builder import Builder
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import Empty, Scope, V


@dataclass(frozen=True)
class NodeContext(Generic[V]):
    """A node, and what is known around it.

    Attributes:
        node: to be converted.
        attributes: its attributes, those with a default missing where they are not written.
        scope: the values that it can see.
        lower_graph: converts a subgraph in the current block: its inputs by name, and its outputs are returned.
        builder: writes what the node is made of.
    """

    node: NodeProto
    attributes: Mapping[str, Any]
    scope: Scope[V]
    lower_graph: Callable[[GraphProto, Scope[V], Mapping[str, V]], list[V]]
    builder: Builder[V]

    def has(self, index: int) -> bool:
        """Is the input given?"""
        return index < len(self.node.input) and self.node.input[index] != ""

    def is_given(self, index: int) -> bool:
        """Has the node the operand? What is empty stands for one that is left out."""
        return self.has(index) and not self.is_empty(index)

    def wants(self, index: int) -> bool:
        """Does anybody want the output?"""
        return index < len(self.node.output) and self.node.output[index] != ""

    def input(self, index: int) -> V:
        """The value of an input that is given."""
        return self.scope.value(self.node.input[index])

    def constant(self, index: int) -> NDArray[Any] | None:
        """The value of an input that is known now; None where it is not, or where it is not given."""
        return self.scope.constant(self.node.input[index]) if self.has(index) else None

    def is_empty(self, index: int) -> bool:
        """Has the input no elements?"""
        return self.has(index) and self.scope.is_empty(self.node.input[index])

    def known(self, index: int, what: str) -> NDArray[Any]:
        """As `constant`, where it must be known."""
        value = self.constant(index)
        if value is None:
            raise Refusal(f"{what} is computed while the model runs; fix the shapes or inputs that it depends on")
        return value

    def ints(self, index: int, what: str) -> list[int]:
        """A known vector of whole numbers: axes, sizes."""
        return [int(each) for each in self.known(index, what).reshape(-1)]

    def give(self, value: V | Empty, index: int = 0) -> None:
        """`value` is the node's output `index`."""
        if self.wants(index):
            self.scope.put(self.node.output[index], value)


Lowering: TypeAlias = Callable[[NodeContext[Any]], None]
"""Writes what gives the outputs of a node. Raises Refusal where it cannot be done exactly."""
