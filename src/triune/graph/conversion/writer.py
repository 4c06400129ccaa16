"""Conversion of a graph of core ops node by node; problems are recorded, and the conversion goes on."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Generic

from onnx import GraphProto, NodeProto

from triune.core.errors import UnsupportedError
from triune.graph.conversion.contradiction import contradiction
from triune.graph.conversion.problems import MissingError, Problem, called
from triune.graph.conversion.scope import Scope, V


class GraphWriter(ABC, Generic[V]):
    """Converts the nodes of a graph and of its subgraphs.

    Attributes:
        problems: the nodes that cannot be converted.
    """

    library: str
    """The name in messages of the library that builds programs: "coremltools"."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    @abstractmethod
    def new_scope(self, graph: GraphProto, outer: Scope[V] | None = None) -> Scope[V]:
        """Make a scope for the values of a graph."""

    @abstractmethod
    def lower(self, node: NodeProto, scope: Scope[V]) -> None:
        """Convert a node. Raises Refusal, or any exception of the library."""

    @abstractmethod
    def check(self, value: V, node: NodeProto) -> None:
        """Raise Refusal for a result that the program cannot hold."""

    @abstractmethod
    def stand_in(self, scope: Scope[V], name: str) -> V:
        """A placeholder of the type of a value that could not be made, so that its readers are checked too."""

    def around(self, _node: NodeProto) -> AbstractContextManager[object]:
        """The context manager in which a node is converted."""
        return contextlib.nullcontext()

    def write_nodes(self, graph: GraphProto, scope: Scope[V]) -> None:
        """Convert all nodes, in order."""
        for node in graph.node:
            with self.around(node):
                self._write(node, scope)

    def write_graph(self, graph: GraphProto, outer: Scope[V], inputs: Mapping[str, V]) -> list[V]:
        """Convert a subgraph into the current block. Returns its outputs."""
        scope = self.new_scope(graph, outer)
        for name, value in inputs.items():
            scope.put(name, value)
        self.write_nodes(graph, scope)
        return [scope.value(value.name) for value in graph.output]

    def output(self, name: str, scope: Scope[V]) -> V | None:
        """The value of an output of the graph; None if it could not be made, for a reason that is recorded."""
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
        # The libraries' builders raise exceptions of any class.
        except Exception as error:  # noqa: BLE001
            self._refuse(node, scope, self._reason(node, scope, error))

    def told(self, error: Exception) -> str:
        """The message of an exception of the library, in one line."""
        text = " ".join(str(error).split())
        # Messages of Python's own exceptions say little without the class's name.
        return f"{type(error).__name__} {text}" if isinstance(error, (LookupError, AssertionError)) else text

    def _reason(self, node: NodeProto, scope: Scope[V], error: Exception) -> str:
        why = contradiction(node, scope.values)
        if why is not None:
            return f"it is no valid ONNX: {why}"
        text = self.told(error) or repr(error)
        return f"{self.library} refuses it: {text}; look at the types and sizes that it is given"

    def _refuse(self, node: NodeProto, scope: Scope[V], reason: str) -> None:
        """Record a problem, and go on with placeholders for the outputs to find further problems."""
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
