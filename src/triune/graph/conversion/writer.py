"""Convert a graph of core ops node by node. Nodes that cannot be converted are recorded, and the conversion goes on."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Generic

from onnx import GraphProto, NodeProto

from triune.core.errors import UnsupportedError
from triune.graph.conversion.problems import MissingError, Problem, Refusal, called
from triune.graph.conversion.scope import Scope, V
from triune.graph.conversion.unconverted import why_unconverted


class GraphWriter(ABC, Generic[V]):
    """Converts the nodes of a graph and of its subgraphs.

    Attributes:
        problems: the nodes that could not be converted.
    """

    library: str
    """The name, for messages, of the vendor's library that builds programs: "coremltools"."""

    runtime: str
    """The name of the target runtime in messages: "Core ML"."""

    table: Mapping[str, Callable[[Any], None]]
    """The lowering of each core op."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    @abstractmethod
    def new_scope(self, graph: GraphProto, outer: Scope[V] | None = None) -> Scope[V]:
        """Create the scope for a graph."""

    @abstractmethod
    def lower(self, node: NodeProto, scope: Scope[V]) -> None:
        """Convert a node. Raises Refusal, or any exception of the vendor's library."""

    @abstractmethod
    def check(self, value: V, node: NodeProto) -> None:
        """Raise Refusal if programs cannot have such a value. `value` is the result of `node`."""

    @abstractmethod
    def stand_in(self, scope: Scope[V], name: str) -> V:
        """A placeholder of the same type and shape for a value whose node could not be converted, so that the nodes
        that read it are checked too.
        """

    def lowering_of(self, node: NodeProto) -> Callable[[Any], None]:
        """The lowering of the node's operator. Raises Refusal, with the reason, if it is not a core op."""
        lowering = self.table.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if lowering is None:
            raise Refusal(why_unconverted(node, self.runtime))
        return lowering

    def around(self, _node: NodeProto) -> AbstractContextManager[object]:
        """A context manager within which a node is converted; by default it does nothing."""
        return contextlib.nullcontext()

    def write_nodes(self, graph: GraphProto, scope: Scope[V]) -> None:
        """Convert all nodes, in order."""
        for node in graph.node:
            with self.around(node):
                self._write(node, scope)

    def write_graph(self, graph: GraphProto, outer: Scope[V], inputs: Mapping[str, V]) -> list[V]:
        """Convert a subgraph into the current block of the program, with these values as inputs; returns its
        outputs.
        """
        scope = self.new_scope(graph, outer)
        for name, value in inputs.items():
            scope.put(name, value)
        self.write_nodes(graph, scope)
        return [scope.value(value.name) for value in graph.output]

    def output(self, name: str, scope: Scope[V]) -> V | None:
        """The program's value for an output of the graph; None if its node could not be converted, which is recorded in
        `problems`.
        """
        try:
            return scope.value(name)
        except MissingError:
            return None
        except UnsupportedError as error:
            self.problems.append(Problem(f"output '{name}'", str(error)))
            return None

    def _write(self, node: NodeProto, scope: Scope[V]) -> None:
        try:
            self.lower(node, scope)
            for name in node.output:
                if name and not scope.is_empty(name):
                    self.check(scope.value(name), node)
        except MissingError:
            self._lose(node, scope)
        except UnsupportedError as error:
            self._refuse(node, scope, str(error))
        # Vendors' libraries raise exceptions of any class.
        except Exception as error:  # noqa: BLE001
            text = self.message_of(error) or repr(error)
            self._refuse(node, scope, f"{self.library} refuses it: {text}; look at the types and sizes of its inputs")

    def message_of(self, error: Exception) -> str:
        """The message of an exception of the vendor's library, in one line."""
        text = " ".join(str(error).split())
        # Add the name of the class: a message such as KeyError's says little without it.
        return f"{type(error).__name__} {text}" if isinstance(error, (LookupError, AssertionError)) else text

    def _refuse(self, node: NodeProto, scope: Scope[V], reason: str) -> None:
        """Record a problem, and put placeholders for the node's outputs, so that further problems are found."""
        problem = Problem(called(node), reason)
        # The body of a loop is converted more than once, but its problems are recorded once.
        if problem not in self.problems:
            self.problems.append(problem)
        self._lose(node, scope)

    def _lose(self, node: NodeProto, scope: Scope[V]) -> None:
        for name in node.output:
            if name and scope.values.shape(name) is not None:
                scope.put(name, self.stand_in(scope, name))
            elif name:
                scope.lose(name)
