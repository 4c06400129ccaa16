"""Edit a graph: replace values and nodes so that inputs, outputs and values that subgraphs read keep their names."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper

from triune.graph.names import Names
from triune.graph.values import Values, names_read, subgraphs_of
from triune.graph.weight_files import WeightFile
from triune.graph.weights import tensor_of


class Edit:
    """A graph while one pass changes it: its nodes in order, who makes and who reads each value, and new names."""

    def __init__(self, graph: GraphProto, outer: Values | None, names: Names, opset: int) -> None:
        """Args:
        graph: its list of nodes is not changed before `finish`; its single nodes and its initializers may be.
        outer: the values of the graph around it; None for the main graph.
        names: makes names that are new in the whole model.
        opset: the version of ONNX's operator set that the model imports.
        """
        self.graph = graph
        self.values = Values(graph, outer)
        self.opset = opset
        self.nodes: list[NodeProto] = list(graph.node)
        self._names = names
        self._outputs = {value.name for value in graph.output}
        self._own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        self._inner: set[str] = set()
        self._producers: dict[str, NodeProto] = {}
        self._readers: dict[str, list[NodeProto]] = {}
        self._dropped: set[int] = set()
        self._added: dict[int, list[NodeProto]] = {}
        for node in self.nodes:
            self._index(node)
            for inner in subgraphs_of(node):
                self._inner |= names_read(inner)

    def _index(self, node: NodeProto) -> None:
        for name in filter(None, node.output):
            self._producers[name] = node
        for name in dict.fromkeys(filter(None, node.input)):
            self._readers.setdefault(name, []).append(node)

    @property
    def is_changed(self) -> bool:
        """Whether a node was dropped or replaced."""
        return bool(self._dropped or self._added)

    def each(self, *op_types: str) -> Iterator[NodeProto]:
        """Yield the remaining nodes of ONNX's own domain with these operators, in order; all of them if no operator is
        given.
        """
        for node in self.nodes:
            if id(node) in self._dropped or node.domain not in ("", "ai.onnx"):
                continue
            if not op_types or node.op_type in op_types:
                yield node

    def producer(self, name: str, *op_types: str) -> NodeProto | None:
        """The node of ONNX's own domain that computes the value `name`; None if there is none, or if its operator is
        not one of `op_types`.
        """
        node = self._producers.get(name)
        if node is None or node.domain not in ("", "ai.onnx"):
            return None
        return node if not op_types or node.op_type in op_types else None

    def readers(self, name: str) -> Sequence[NodeProto]:
        """The nodes of this graph that read a value."""
        return self._readers.get(name, [])

    def is_kept(self, name: str) -> bool:
        """Whether a value is an output of the graph, or read by a subgraph: its name must stay."""
        return name in self._outputs or name in self._inner

    def only_reader(self, name: str, *op_types: str) -> NodeProto | None:
        """The only node that reads a value; None if there are several or none, or if the value must stay."""
        readers = self.readers(name)
        if len(readers) != 1 or self.is_kept(name) or readers[0].domain not in ("", "ai.onnx"):
            return None
        return readers[0] if not op_types or readers[0].op_type in op_types else None

    def is_computed(self, name: str) -> bool:
        """Whether a node of this graph computes a value."""
        return name in self._producers

    def constant(self, name: str) -> NDArray[Any] | None:
        """The elements of a constant; None if `name` is "", or no constant has it."""
        return self.values.constant(name) if name else None

    def scalar(self, name: str) -> float | None:
        """The value of a constant of one element of at most 8 bytes; None for any other value."""
        if not name or (shape := self.values.static_shape(name)) is None or any(size != 1 for size in shape):
            return None
        array = self.constant(name)
        return None if array is None or array.dtype.kind not in "iufb" else float(array.reshape(-1)[0])

    def ints(self, node: NodeProto, position: int, attribute: str) -> list[int] | None:
        """Integers that a node has as a constant input at `position`, or in older operator sets as an attribute.

        None if it has neither, or the input is not constant.
        """
        found = next((list(each.ints) for each in node.attribute if each.name == attribute), None)
        if found is not None or len(node.input) <= position or not node.input[position]:
            return found
        array = self.constant(node.input[position])
        return None if array is None or array.dtype.kind not in "iu" else [int(each) for each in array.reshape(-1)]

    def name(self, wish: str) -> str:
        """A new name, `wish` if nothing has it yet."""
        return self._names.value(wish)

    def weight(self, wish: str, array: NDArray[Any], file: WeightFile | None = None) -> str:
        """Add an initializer to the graph; returns its name. A large one goes to `file`."""
        name = self.name(wish)
        self.graph.initializer.append(tensor_of(name, array) if file is None else file.tensor(name, array))
        self._own.add(name)
        return name

    def ints_constant(self, wish: str, values: Sequence[int]) -> str:
        """Add an INT64 vector to the graph, such as a shape; returns its name."""
        return self.weight(wish, np.array(values, np.int64))

    def set_inputs(self, node: NodeProto, inputs: Sequence[str]) -> None:
        """Set the names of the values that a node reads."""
        for name in dict.fromkeys(node.input):
            if name in self._readers:
                self._readers[name] = [each for each in self._readers[name] if each is not node]
        node.input[:] = inputs
        for name in dict.fromkeys(filter(None, inputs)):
            self._readers.setdefault(name, []).append(node)

    def replace(self, node: NodeProto, others: Sequence[NodeProto]) -> None:
        """Replace a node by `others`, which must compute its results under the same names."""
        self.drop(node)
        self._added.setdefault(id(node), []).extend(others)
        for each in others:
            self._index(each)

    def drop(self, node: NodeProto) -> None:
        """Remove a node whose results nothing reads any more."""
        self._dropped.add(id(node))
        for name in dict.fromkeys(node.input):
            if name in self._readers:
                self._readers[name] = [each for each in self._readers[name] if each is not node]
        for name in node.output:
            if self._producers.get(name) is node:
                del self._producers[name]

    def bypass(self, node: NodeProto, name: str) -> bool:
        """Let all readers of a node's only result read the equal value `name`; returns whether that was possible.

        Where the result is an output of the graph, the node that computes `name` gives it the output's name instead.
        """
        (result,) = [each for each in node.output if each]
        if not self.is_kept(result):
            self.forward(result, name)
            self.drop(node)
            return True
        if result in self._inner or self.is_kept(name) or name in self._own or name not in self._producers:
            return False
        maker = self._producers[name]
        if maker is node:
            return False
        self.drop(node)
        self.forward(name, result)
        maker.output[list(maker.output).index(name)] = result
        del self._producers[name]
        self._producers[result] = maker
        return True

    def forward(self, old: str, new: str) -> None:
        """Let the nodes that read `old` read `new` instead."""
        for reader in list(self.readers(old)):
            self.set_inputs(reader, [new if each == old else each for each in reader.input])

    def finish(self) -> None:
        """Write the nodes back to the graph."""
        if not self.is_changed:
            return
        nodes: list[NodeProto] = []
        for node in self.nodes:
            nodes += self._written(node)
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)

    def _written(self, node: NodeProto) -> list[NodeProto]:
        added = [each for other in self._added.get(id(node), ()) for each in self._written(other)]
        return added if id(node) in self._dropped else [*added, node]


def edit_graphs(model: ModelProto, change: Callable[[Edit], None]) -> None:
    """Call `change` for a model's graph and all of its subgraphs, inner ones first, and write what it changed."""
    opset = opset_of(model)
    names = Names(model.graph)
    # The first call of `value` collects the graph's names, which must be done before the graph is changed.
    names.value("edit")
    _edit(model.graph, None, names, opset, change)


def _edit(graph: GraphProto, outer: Values | None, names: Names, opset: int, change: Callable[[Edit], None]) -> None:
    values = Values(graph, outer)
    for node in graph.node:
        for inner in subgraphs_of(node):
            _edit(inner, values, names, opset, change)
    edit = Edit(graph, outer, names, opset)
    change(edit)
    edit.finish()


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operator set that a model imports; 1 if it imports none."""
    return next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)


def node_of(op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> NodeProto:
    """A node that is named after its first output."""
    return helper.make_node(op_type, inputs, outputs, name=outputs[0], **attributes)
