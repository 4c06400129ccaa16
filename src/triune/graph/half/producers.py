"""Find the node that computes a value, the nodes that read it, and the paths between nodes."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto

from triune.graph.half.bounds import Bounds
from triune.graph.half.operators import COPY_TO_OUTPUT, KEEP_INTEGER_SIZE, SCALE_DOWN
from triune.graph.values import Values, names_read

DEEPEST = 16
"""The largest number of nodes in a row that a search follows."""


class Producers:
    """The producer and the readers of each value of a graph.

    Attributes:
        values: the types, shapes and constants of the graph.
        bounds: the intervals of these values.
        is_within: whether the graph is a subgraph, whose inputs are not the model's.
    """

    def __init__(self, graph: GraphProto, values: Values, bounds: Bounds, *, is_within: bool = False) -> None:
        self.values = values
        self.bounds = bounds
        self.is_within = is_within
        self._producers = {name: node for node in graph.node for name in node.output if name}
        self._inputs = {value.name for value in graph.input}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = names_read(graph) - {name for node in graph.node for name in node.input}
        self._outputs |= {value.name for value in graph.output}

    def of(self, name: str) -> NodeProto | None:
        """The node of this graph that computes a value."""
        return self._producers.get(name)

    def is_input(self, name: str) -> bool:
        """Whether a value is an input of this graph."""
        return name in self._inputs

    def readers(self, name: str) -> Sequence[NodeProto]:
        """The nodes of this graph that read a value."""
        return self._readers.get(name, [])

    def floats(self, node: NodeProto) -> list[str]:
        """The operands of a node that are floats, not conditions, indices or sizes."""
        return [name for name in node.input if name and self.values.elem_type(name) == TensorProto.FLOAT]

    def leading_to(
        self,
        name: str,
        begin: Callable[[str, NodeProto], Sequence[NodeProto]],
        passes: Callable[[str, NodeProto], bool],
    ) -> list[NodeProto]:
        """Find all nodes on the paths from nodes of some kind to a value.

        Args:
            name: the value.
            begin: called with a value and the node that computes it; returns the nodes with which a path begins there,
                [] if none begins.
            passes: called with the same arguments; returns whether a path may go through the node.

        Returns:
            the nodes, operands first; [] if no path leads to the value.
        """
        found: dict[str, list[NodeProto]] = {}

        def look(name: str, depth: int) -> list[NodeProto]:
            node = self.of(name)
            if name in found or node is None or depth > DEEPEST:
                return found.setdefault(name, [])
            found[name] = []
            first = begin(name, node)
            if first:
                found[name] = list(first)
            elif passes(name, node):
                before = [each for operand in self.floats(node) for each in look(operand, depth + 1)]
                found[name] = [*before, node] if before else []
            return found[name]

        return look(name, 0)

    def are_read_by(self, name: str, kinds: Collection[str]) -> bool:
        """Whether `name` is not an output and all its readers are operators of `kinds`."""
        readers = self._readers.get(name, [])
        return bool(readers) and name not in self._outputs and all(reader.op_type in kinds for reader in readers)

    def is_scaled_down(self, name: str, depth: int = 0) -> bool:
        """Whether the integers in `name` are divided, normalized or multiplied by weights, so that the results are
        within fp16.
        """
        if depth > DEEPEST:
            return False
        for reader in self._readers.get(name, []):
            match reader.op_type:
                case "Div" | "Pow" | "Mod" if reader.input[0] == name:
                    return True
                case "Mul" | "Div" if any(self.values.constant(each) is not None for each in reader.input):
                    if self.is_scaled_down(reader.output[0], depth + 1):
                        return True
                    sizes = [self.values.constant(each) for each in reader.input if each != name]
                    if any(size is not None and size.size and np.abs(size).max() < 1 for size in sizes):
                        return True
                case _ if reader.op_type in SCALE_DOWN:
                    return True
                case _ if reader.op_type in KEEP_INTEGER_SIZE and self.is_scaled_down(reader.output[0], depth + 1):
                    return True
                case _:
                    pass
        return False

    def is_output(self, name: str, depth: int = 0) -> bool:
        """Whether a value is an output of the graph, or its elements are copied to one."""
        if name in self._outputs:
            return True
        readers = self._readers.get(name, []) if depth < DEEPEST else []
        return any(
            reader.op_type in COPY_TO_OUTPUT and any(self.is_output(each, depth + 1) for each in reader.output)
            for reader in readers
        )

    def end_in(self, name: str, kinds: Collection[str], depth: int = 0) -> bool:
        """Whether all paths from `name`, which go through Mul, Add and Pow only, end in operators of `kinds`."""
        readers = self._readers.get(name, [])
        if not readers or name in self._outputs or depth > DEEPEST:
            return False
        return all(
            reader.op_type in kinds
            or (reader.op_type in ("Mul", "Add", "Pow") and self.end_in(reader.output[0], kinds, depth + 1))
            for reader in readers
        )
