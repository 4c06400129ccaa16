"""Write nodes that compute values of many axes as values of fewer, with the same elements in the same order."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from triune.coreml.lowering.deep.groups import Sizes, fewest, product
from triune.graph.names import Names
from triune.graph.values import Values
from triune.graph.weights import tensor_of


class TooManyAxesError(Exception):
    """A node cannot be written with fewer axes, or too little is known of their sizes."""


class Views:
    """The nodes that are written in place of a graph's, and which axes the values have in them.

    A value keeps its name; its axes may be others than in the graph. Who reads it says by `view` which axes it wants.

    Attributes:
        nodes: the nodes that were written.
        constants: new initializers that they read.
        wide: the names of new values that compute in fp32, as the values of which they are a part do.
    """

    def __init__(self, values: Values, names: Names, most: int, wide: Collection[str]) -> None:
        """`most` is the largest number of axes. `wide` are the values of the graph that compute in fp32."""
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
        """Say in whose place the next nodes are written."""
        self._is_wide = any(name in self._given_wide for name in node.output if name)
        self._wish = node.output[0]

    def sizes(self, name: str) -> Sizes:
        """The shape that a value has in the graph.

        Raises:
            TooManyAxesError: its rank is not known.
        """
        found = self.values.shape(name)
        if found is None:
            raise TooManyAxesError
        return found

    def is_deep(self, name: str) -> bool:
        """Whether a value has too many axes in the graph."""
        return bool(name) and len(self.values.shape(name) or ()) > self.most

    def ints(self, node: NodeProto, position: int) -> list[int] | None:
        """The integers of a node's operand; None if it has none there.

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
        """The name of a value with the elements of the value `name` and these axes.

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
        """The name of a constant of these sizes, with -1 for the free one."""
        return self.constant(np.array([-1 if size is None else size for size in sizes], np.int64))

    def constant(self, array: Any) -> str:
        """Add a constant; returns its name."""
        name = self._names.value(f"{self._wish}/constant")
        self.constants.append(tensor_of(name, array))
        return name

    def op(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Write a node with a result of a new name, which is returned."""
        found = self._names.value(f"{self._wish}/part")
        self._node(op_type, inputs, found, **attributes)
        return found

    def _node(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        if self._is_wide:
            self.wide.add(output)

    def copy(self, node: NodeProto, inputs: Sequence[str], sizes: Sizes, **attributes: Any) -> None:
        """Write a node's operator with other operands, whose result has the axes `sizes`, as the node's result.

        Args:
            node: the node, of one output.
            inputs: its operands.
            sizes: the axes of its result; where the result in the graph is not deep, they are changed to those.
            attributes: attributes in place of those of the node; None leaves one out.
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
        """Let the value `name` of the graph have the elements of `given`."""
        wanted = self.sizes(name)
        sizes = fewest(wanted, self.most) if self.is_deep(name) else wanted
        if sizes.count(None) > 1:
            raise TooManyAxesError
        self.nodes.append(helper.make_node("Reshape", [given, self.vector(sizes)], [name], name=name))
        self._written[name] = sizes

    def flat(self, name: str) -> str:
        """A value as it was written, with whatever axes."""
        is_constant = self.values.tensor(name) is not None
        return self.view(name, (product(self.sizes(name)),)) if is_constant and self.is_deep(name) else name
