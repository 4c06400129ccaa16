"""The context of a node that is computed with MLX."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from onnx import GraphProto, NodeProto

from triune.graph.conversion.context import NodeContext
from triune.graph.conversion.lowering.builder import Builder
from triune.graph.conversion.scope import Empty, Scope
from triune.metal.library import Value

if TYPE_CHECKING:
    from triune.metal.builder import MlxBuilder

Context: TypeAlias = NodeContext[Value]


class NamedContext(NodeContext[Value]):
    """A context that reads the names of its node only once, for nodes that are computed many times."""

    def __init__(
        self,
        node: NodeProto,
        attributes: Mapping[str, Any],
        scope: Scope[Value],
        lower_graph: Callable[[GraphProto, Scope[Value], Mapping[str, Value]], list[Value]],
        builder: Builder[Value],
    ) -> None:
        super().__init__(node, attributes, scope, lower_graph, builder)
        object.__setattr__(self, "inputs", tuple(node.input))
        object.__setattr__(self, "outputs", tuple(node.output))

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def has(self, index: int) -> bool:
        """Implements `NodeContext.has`."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def input(self, index: int) -> Value:
        """Implements `NodeContext.input`."""
        return self.scope.value(self.inputs[index])

    def give(self, value: Value | Empty, index: int = 0) -> None:
        """Implements `NodeContext.give`."""
        if index < len(self.outputs) and self.outputs[index]:
            self.scope.put(self.outputs[index], value)


Lowering: TypeAlias = Callable[[Context], None]
"""A function that computes a node's outputs. It raises Refusal if they cannot be computed."""


def builder_of(c: Context) -> "MlxBuilder":
    """The node's builder, with its actual type `MlxBuilder`."""
    return cast("MlxBuilder", c.builder)
