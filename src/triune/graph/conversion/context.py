"""The context in which a node is converted: the node, its attributes, the values in scope, and the program's
builder.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias

from numpy.typing import NDArray
from onnx import GraphProto, NodeProto

from triune.graph.conversion.lowering.builder import Builder
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import Empty, Scope, V


@dataclass(frozen=True)
class NodeContext(Generic[V]):
    """The node that is converted, and what the conversion reads and writes.

    Attributes:
        node: the node.
        attributes: the attributes that the node has, without defaults.
        scope: the program's values for the ONNX values that the node can read.
        lower_graph: converts a subgraph into the current block of the program; takes values for its inputs, by name,
            and returns its outputs.
        builder: writes operations into the program.
    """

    node: NodeProto
    attributes: Mapping[str, Any]
    scope: Scope[V]
    lower_graph: Callable[[GraphProto, Scope[V], Mapping[str, V]], list[V]]
    builder: Builder[V]

    def has(self, index: int) -> bool:
        """Whether the input is not omitted."""
        return index < len(self.node.input) and self.node.input[index] != ""

    def is_given(self, index: int) -> bool:
        """Whether the input is not omitted and has elements."""
        return self.has(index) and not self.is_empty(index)

    def wants(self, index: int) -> bool:
        """Whether the output is not omitted."""
        return index < len(self.node.output) and self.node.output[index] != ""

    def input(self, index: int) -> V:
        """The program's value for an input, which must not be omitted."""
        return self.scope.value(self.node.input[index])

    def constant(self, index: int) -> NDArray[Any] | None:
        """The value of an input that is known at conversion time; None if the model computes it, or if it is
        omitted.
        """
        return self.scope.constant(self.node.input[index]) if self.has(index) else None

    def is_empty(self, index: int) -> bool:
        """Whether the input has no elements."""
        return self.has(index) and self.scope.is_empty(self.node.input[index])

    def known(self, index: int, what: str) -> NDArray[Any]:
        """The value of an input that must be known at conversion time.

        Raises:
            Refusal: it is not known. `what` begins the message: "the axes of a reduction".
        """
        value = self.constant(index)
        if value is None:
            raise Refusal(f"{what} is computed while the model runs; fix the shapes or inputs that it depends on")
        return value

    def ints(self, index: int, what: str) -> list[int]:
        """The integers of an input that must be known at conversion time, such as axes or sizes; else Refusal is
        raised.
        """
        return [int(each) for each in self.known(index, what).reshape(-1)]

    def give(self, value: V | Empty, index: int = 0) -> None:
        """Set the node's output `index` to `value`."""
        if self.wants(index):
            self.scope.put(self.node.output[index], value)

    def give_all(self, values: Iterable[V]) -> None:
        """Set the node's first outputs to `values`."""
        for index, value in enumerate(values):
            self.give(value, index)


Lowering: TypeAlias = Callable[[NodeContext[Any]], None]
"""A function that writes the operations that compute a node's outputs. It raises Refusal if no operations compute them
exactly.
"""
