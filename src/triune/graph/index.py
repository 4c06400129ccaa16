"""An index of a graph for passes: for each value its producer, readers, shape, and elements if it is constant."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto

from triune.graph.builder import Builder
from triune.graph.dims import Dim, Dims
from triune.graph.names import Names
from triune.graph.packed import Packed, as_dequantize, packed_of
from triune.graph.sizes import Sizes
from triune.graph.values import Values, attributes_of, names_read, subgraphs_of
from triune.graph.weight_files import array_of
from triune.graph.weights import Large, NoneLarge, tensor_of

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
INTS = (TensorProto.INT32, TensorProto.INT64)


class Index:
    """An index of a graph. It describes the graph as it was before a pass, and has the builder for the nodes that the
    pass adds.
    """

    def __init__(self, graph: GraphProto, prefix: str, large: Large | None = None) -> None:
        """The names of added nodes begin with `prefix`. `large` has the large constants, which are kept out of the
        graph while passes run.
        """
        self.graph = graph
        self.values = Values(graph)
        self._large = large or NoneLarge()
        self._producers = {name: node for node in graph.node for name in node.output if name}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)
        self._kept = {value.name for value in graph.output}
        for node in graph.node:
            for subgraph in subgraphs_of(node):
                self._kept |= names_read(subgraph)
        self._sizes = Sizes(graph, self._few_ints, self._shapes_of_constants())
        self.build = Builder(Names(graph).prefix(prefix))
        self._num_taken = 0

    def producer(self, name: str, *op_types: str) -> NodeProto | None:
        """The node that computes the value `name`; None if there is none, or if its operator is not one of
        `op_types`.
        """
        node = self._producers.get(name)
        return node if node is not None and (not op_types or node.op_type in op_types) else None

    def readers(self, name: str) -> Sequence[NodeProto]:
        """The nodes of this graph that read the value `name`."""
        return self._readers.get(name, ())

    def is_kept(self, name: str) -> bool:
        """Whether a value is an output of the graph, or read by a subgraph."""
        return name in self._kept

    def only_reader(self, name: str) -> NodeProto | None:
        """The only node that reads `name`; None if there are several or none, or if the value is an output."""
        readers = self.readers(name)
        return readers[0] if len(readers) == 1 and not self.is_kept(name) else None

    def dims(self, name: str) -> Dims | None:
        """The shape of a value, with names for unknown sizes; None if not even the rank is known."""
        return self._sizes.get(name)

    def elements(self, name: str) -> Dims | None:
        """The elements of a 1-D tensor of sizes, with names for unknown ones; None for any other value."""
        return self._sizes.elements(name)

    def learn(self, name: str, like: str) -> None:
        """Record that the new value `name` has the shape of `like`."""
        self._sizes.learn(name, like)

    def rank(self, name: str) -> int | None:
        """The number of dimensions of a value; None if it is not known."""
        dims = self.dims(name)
        return None if dims is None else len(dims)

    def is_float(self, name: str) -> bool:
        """Whether a value is of fp32 or fp16."""
        return self.values.elem_type(name) in FLOATS

    def dtype(self, name: str) -> np.dtype[Any]:
        """The numpy type of a value of fp32 or fp16."""
        return np.dtype(np.float16 if self.values.elem_type(name) == TensorProto.FLOAT16 else np.float32)

    def is_constant(self, name: str) -> bool:
        """Whether a value is a constant."""
        return self._tensor(name) is not None

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of a constant; None if `name` is not constant."""
        tensor = self._tensor(name)
        return None if tensor is None else array_of(tensor)

    def _tensor(self, name: str) -> TensorProto | None:
        return self._large.get(name) or self.values.tensor(name)

    def _few_ints(self, name: str) -> list[int] | None:
        tensor = self._tensor(name)
        if tensor is None or len(tensor.dims) > 1 or tensor.data_type not in INTS or sum(tensor.dims) > 16:
            return None
        return [int(each) for each in array_of(tensor).reshape(-1)]

    def _shapes_of_constants(self) -> dict[str, Dims]:
        inputs = {value.name for value in self.graph.input}
        shapes: dict[str, Dims] = {t.name: tuple(t.dims) for t in self.graph.initializer if t.name not in inputs}
        for name in inputs:
            tensor = self._large.get(name)
            if tensor is not None:
                shapes[name] = tuple(tensor.dims)
        for node in self.graph.node:
            if node.op_type == "Constant":
                tensor = self._tensor(node.output[0])
                if tensor is not None:
                    shapes[node.output[0]] = tuple(tensor.dims)
        return shapes

    def scalar(self, name: str) -> float | None:
        """The value of a constant of one element; None for any other value."""
        array = self.constant(name) if all(dim == 1 for dim in self.dims(name) or ()) else None
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None

    def ints(self, node: NodeProto, index: int) -> list[int] | None:
        """The integers of a node's input at position `index`; None if it is not constant or is omitted."""
        array = self.constant(node.input[index]) if len(node.input) > index and node.input[index] else None
        return None if array is None else [int(each) for each in array.reshape(-1)]

    def weight(self, array: NDArray[Any]) -> str:
        """Add a constant to the graph; returns its name."""
        name = self.build.name()
        self._large.add(self.graph, tensor_of(name, array))
        return name

    def packed(self, name: str) -> Packed | None:
        """The quantized weights that a DequantizeLinear reads to compute the value `name`; None if there are none."""
        node = self.producer(name, "DequantizeLinear")
        return None if node is None else packed_of(node, self._tensor)

    def is_weight(self, name: str) -> bool:
        """Whether a value is a constant, or a DequantizeLinear of constants."""
        return self.is_constant(name) or self.packed(name) is not None

    def packed_weight(self, packed: Packed) -> str:
        """Add quantized weights and their DequantizeLinear to the graph; returns the name of its result."""
        name = self.build.name()
        unpacking, constants = as_dequantize(packed, name, name)
        self.build.nodes.append(unpacking)
        for tensor in constants:
            self._large.add(self.graph, tensor)
        return name

    def take(self) -> list[NodeProto]:
        """The nodes that were built since the last call of this function."""
        nodes = self.build.nodes[self._num_taken :]
        self._num_taken = len(self.build.nodes)
        return nodes

    def replace(self, nodes: Sequence[NodeProto]) -> None:
        """Set the nodes of the graph. The index must not be used any more."""
        del self.graph.node[:]
        self.graph.node.extend(nodes)


def same_sizes(a: Sequence[Dim] | None, b: Sequence[Dim] | None) -> bool:
    """Whether two shapes with the same number of elements are equal. If all sizes but one are equal, that one is,
    too.
    """
    if a is None or b is None or len(a) != len(b):
        return False
    unproven = [(x, y) for x, y in zip(a, b, strict=True) if x is None or x != y]
    return len(unproven) <= 1 and not any(isinstance(x, int) and isinstance(y, int) for x, y in unproven)


def perm_of(node: NodeProto, rank: int) -> tuple[int, ...]:
    """The permutation of a Transpose."""
    return tuple(attributes_of(node).get("perm", range(rank - 1, -1, -1)))


def label(node: NodeProto) -> str:
    """A node's operator and name, for reports."""
    return f"{node.op_type} '{node.name or node.output[0]}'"
