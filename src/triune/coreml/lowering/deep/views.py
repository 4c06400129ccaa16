"""Write nodes that compute values of many axes as values of fewer, with the same elements in the same order."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from triune.coreml.lowering.deep.groups import Sizes, fewest, product
from triune.graph.index import Index
from triune.graph.names import Names
from triune.graph.values import Values
from triune.graph.weights import tensor_of


class TooManyAxesError(Exception):
    """A node cannot be written with fewer axes, or too little is known of their sizes."""


class Views:
    """Collects the nodes that replace those of a graph, and remembers which axes each value has in the new nodes.

    A value keeps its name, but may have fewer axes than in the graph, with the same elements in the same order. A node
    that reads it asks `view` for the axes that it needs, which adds a Reshape if the value has others.

    Attributes:
        nodes: the nodes that were written.
        constants: the new initializers that `nodes` read.
        wide: the names of new values that must be computed in fp32, since the value in whose place they were written
            must be.
    """

    def __init__(
        self, values: Values, names: Names, most: int, wide: Collection[str], index: Index | None = None
    ) -> None:
        """Begin without nodes.

        Args:
            values: the shapes and constants of the graph.
            names: makes names that are new in the graph.
            most: the largest number of axes that a new value may have.
            wide: the names of the graph's values that must be computed in fp32.
            index: knows which free sizes are equal; None if nothing is known of them.
        """
        self._index = index
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.wide: set[str] = set()
        self.values = values
        self.most = most
        self._names = names
        self._given_wide = wide
        self._written: dict[str, Sizes] = {}
        self._views: dict[tuple[str, Sizes], str] = {}
        self._is_wide = False
        self._wish = ""

    def begin(self, node: NodeProto) -> None:
        """Begin the nodes that replace `node`. Its first output begins the names of new values, and they are computed
        in fp32 if one of its outputs must be.
        """
        self._is_wide = any(name in self._given_wide for name in node.output if name)
        self._wish = node.output[0]

    def sizes(self, name: str) -> Sizes:
        """The shape that a value has in the graph.

        Raises:
            TooManyAxesError: the rank of the value is not known.
        """
        found = self.values.shape(name)
        if found is None:
            raise TooManyAxesError
        return found

    def are_equal(self, names: Sequence[str], axis: int) -> bool:
        """Whether values have the same size, which may be free, at one axis. Axis -1 is the last one."""
        if len(names) == 1:
            return True
        found = [self._index.dims(name) if self._index is not None else None for name in names]
        sizes = {None if dims is None else dims[axis] for dims in found}
        return len(sizes) == 1 and None not in sizes

    def is_deep(self, name: str) -> bool:
        """Whether a value is deep: it has more than `most` axes in the graph."""
        return bool(name) and len(self.values.shape(name) or ()) > self.most

    def ints(self, node: NodeProto, position: int) -> list[int] | None:
        """The integers of a node's operand number `position`; None if the node has no such operand.

        Raises:
            TooManyAxesError: the operand is not constant.
        """
        if len(node.input) <= position or not node.input[position]:
            return None
        array = self.values.constant(node.input[position])
        if array is None:
            raise TooManyAxesError
        return [int(each) for each in array.reshape(-1)]

    def view(self, name: str, sizes: Sizes) -> str:
        """The name of a value with the elements of the value `name` and axes of `sizes`: `name` itself if it has these
        axes, else the result of a new Reshape, or a new constant.

        Raises:
            TooManyAxesError: there are too many axes, or several of them are free.
        """
        if len(sizes) > self.most:
            raise TooManyAxesError
        if sizes == self._written.get(name, self.values.shape(name)):
            return name
        if sizes.count(None) > 1:
            raise TooManyAxesError
        if (name, sizes) not in self._views:
            tensor = self.values.tensor(name)
            found = self._names.value(f"{name}/axes")
            if tensor is None:
                self._node("Reshape", [name, self.vector(sizes)], found)
                if name in self._given_wide:
                    self.wide.add(found)
            else:
                copy = TensorProto()
                copy.CopyFrom(tensor)
                copy.name = found
                copy.dims[:] = [each for each in sizes if each is not None]
                self.constants.append(copy)
            self._views[name, sizes] = found
        return self._views[name, sizes]

    def vector(self, sizes: Sequence[int | None]) -> str:
        """The name of a new int64 constant for Reshape's operand `shape`: `sizes`, with -1 for one that is free."""
        return self.constant(np.array([-1 if size is None else size for size in sizes], np.int64))

    def constant(self, array: Any) -> str:
        """Add an initializer, and return its name."""
        name = self._names.value(f"{self._wish}/constant")
        self.constants.append(tensor_of(name, array))
        return name

    def op(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Write a node with one result, and return the new name of the result."""
        found = self._names.value(f"{self._wish}/part")
        self._node(op_type, inputs, found, **attributes)
        return found

    def _node(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        if self._is_wide:
            self.wide.add(output)

    def copy(self, node: NodeProto, inputs: Sequence[str], sizes: Sizes, **attributes: Any) -> None:
        """Write a copy of a node with other operands. Its result has axes of `sizes` and the name of the node's result.

        Args:
            node: the node, which has one output.
            inputs: the operands of the copy.
            sizes: the sizes of the copy's result. If the node's result has at most `self.most` axes in the graph, a
                Reshape gives it back its shape there.
            attributes: attributes that replace those of the node; None removes one.
        """
        copy = NodeProto.FromString(node.SerializeToString())
        copy.input[:] = inputs
        kept = [each for each in copy.attribute if each.name not in attributes]
        del copy.attribute[:]
        copy.attribute.extend(kept)
        copy.attribute.extend(
            helper.make_attribute(key, value) for key, value in attributes.items() if value is not None
        )
        (name,) = node.output
        wanted = self.sizes(name)
        if not self.is_deep(name) and wanted != sizes:
            copy.output[0] = self._names.value(f"{name}/part")
            if self._is_wide:
                self.wide.add(copy.output[0])
            self.nodes.append(copy)
            self.give(copy.output[0], name)
        else:
            self.nodes.append(copy)
            self._written[name] = sizes

    def give(self, given: str, name: str) -> None:
        """Write the value `name` of the graph as a Reshape of the new value `given`.

        It gets the shape that it has in the graph; if that has more than `most` axes, one of at most `most` axes.
        """
        wanted = self.sizes(name)
        sizes = fewest(wanted, self.most) if self.is_deep(name) else wanted
        if sizes.count(None) > 1:
            raise TooManyAxesError
        self.nodes.append(helper.make_node("Reshape", [given, self.vector(sizes)], [name], name=name))
        self._written[name] = sizes

    def flat(self, name: str) -> str:
        """The name of a value, for a node that accepts any number of axes. A constant with more axes than `most` is
        replaced by a vector of its elements.
        """
        is_constant = self.values.tensor(name) is not None
        return self.view(name, (product(self.sizes(name)),)) if is_constant and self.is_deep(name) else name
