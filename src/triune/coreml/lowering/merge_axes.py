"""Merge two axes of gathered elements, since Core ML has at most five axes. PyTorch exports adaptive pools with six.

GatherND with constant indices of height, window, width and window gives six axes with batch and channels, which are
beside each other until the axes of the windows are gone.
"""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from triune.core.datatypes import Array
from triune.coreml.lowering.context import MAX_RANK
from triune.graph.names import Names
from triune.graph.passes.infer import Infer
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, attributes_of

_ELEMENTWISE = frozenset(
    [
        *("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Where", "Abs", "Neg", "Relu", "Exp", "Sqrt", "Identity"),
        *("Cast", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal", "And", "Or", "Not"),
    ]
)
_REDUCTIONS = frozenset(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])


class MergeAxes(GraphPass):
    """Given a GatherND of constant indices whose result has six axes, and consumers that keep the last two axes
    adjacent until a reduction, or a Gather of one index, removes other axes. Result: one axis instead of these two.

    A value with any other consumer is not changed.

    Attributes:
        parted: for each value whose axes are parted again, the name of what its node computes now.
    """

    name = "merge_axes"

    def __init__(self) -> None:
        """Begin without merged axes. An instance is for one model."""
        self.parted: dict[str, str] = {}

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`, whose values have shapes."""
        values = Values(model.graph)
        names = Names(model.graph)
        is_changed = False
        for node in list(model.graph.node):
            shape = values.shape(node.output[0]) if node.op_type == "GatherND" else None
            if shape is not None and len(shape) == MAX_RANK + 1 and not attributes_of(node).get("batch_dims", 0):
                region = _Region(model.graph, values, names)
                if region.merge(node):
                    is_changed = True
                    self.parted |= region.parted
        return Infer()(model) if is_changed else model


class _Region:
    """The values with one axis too many for Core ML, and the nodes that compute and read them."""

    def __init__(self, graph: GraphProto, values: Values, names: Names) -> None:
        self._graph = graph
        self._values = values
        self._names = names
        self._place: dict[str, int] = {}
        self._nodes: list[NodeProto] = []
        self._constants: list[tuple[str, Array]] = []
        self.parted: dict[str, str] = {}

    def merge(self, gather: NodeProto) -> bool:
        """Merge the axes if all readers allow it; returns whether they do."""
        values, data = self._values, gather.input[0]
        indices, rank = values.constant(gather.input[1]), values.rank(data)
        if indices is None or rank is None or rank - indices.shape[-1] < 2:
            return False
        outputs = {value.name for value in self._graph.output}
        for node in self._graph.node:
            if node is gather or (node.op_type == gather.op_type and node.output == gather.output):
                flat = self._names.value(f"{data}/merged")
                self._nodes.append(
                    helper.make_node("Reshape", [data, self._ints(data, [0] * (rank - 2) + [-1])], [flat])
                )
                changed = _copy(node)
                changed.input[0] = flat
                self._nodes.append(changed)
                self._place[node.output[0]] = MAX_RANK - 1
            elif not any(name in self._place for name in node.input):
                self._nodes.append(node)
            elif not self._change(node):
                return False
        if outputs & self._place.keys():
            return False
        kept = [value for value in self._graph.value_info if value.name not in self._place]
        copies = [_copy(node) for node in self._nodes]
        del self._graph.value_info[:]
        self._graph.value_info.extend(kept)
        del self._graph.node[:]
        self._graph.node.extend(copies)
        self._graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in self._constants)
        return True

    def _change(self, node: NodeProto) -> bool:
        place = next(self._place[name] for name in node.input if name in self._place)
        if any(self._place.get(name, place) != place for name in node.input):
            return False
        changed = _copy(node)
        if node.op_type == "Transpose":
            perm = [int(axis) for axis in attributes_of(node)["perm"]]
            at = perm.index(place)
            if perm[at + 1 : at + 2] != [place + 1]:
                return False
            del changed.attribute[:]
            merged = [axis - (axis > place) for axis in perm if axis != place + 1]
            changed.attribute.append(helper.make_attribute("perm", merged))
            self._place[node.output[0]] = at
        elif node.op_type in _ELEMENTWISE:
            for position, name in enumerate(node.input):
                if name not in self._place:
                    other = self._merged(name, place)
                    if other is None:
                        return False
                    changed.input[position] = other
            self._place[node.output[0]] = place
        elif node.op_type in _REDUCTIONS:
            return self._reduce(node, changed, place)
        elif node.op_type == "Gather":
            return self._take(node, changed, place)
        else:
            return False
        self._nodes.append(changed)
        return True

    def _reduce(self, node: NodeProto, changed: NodeProto, place: int) -> bool:
        axes = self._values.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        if axes is None:
            return False
        own = [int(axis) % (MAX_RANK + 1) for axis in axes.reshape(-1)]
        if place in own or place + 1 in own:
            return False
        changed.input[1] = self._ints(node.output[0], [axis - (axis > place) for axis in own])
        if attributes_of(node).get("keepdims", 1):
            self._nodes.append(changed)
            self._place[node.output[0]] = place
            return True
        return self._part(node, changed)

    def _take(self, node: NodeProto, changed: NodeProto, place: int) -> bool:
        """Change a Gather of a single index along another axis than the merged ones."""
        axis = int(attributes_of(node).get("axis", 0)) % (MAX_RANK + 1)
        is_one = self._values.rank(node.input[1]) == 0 and node.input[0] in self._place
        if not is_one or axis in (place, place + 1):
            return False
        kept = [attribute for attribute in node.attribute if attribute.name != "axis"]
        del changed.attribute[:]
        changed.attribute.extend([*kept, helper.make_attribute("axis", axis - (axis > place))])
        return self._part(node, changed)

    def _part(self, node: NodeProto, changed: NodeProto) -> bool:
        """Split the merged axis into two again, in a result that lacks some of the other axes."""
        self._nodes.append(changed)
        shape = self._values.shape(node.output[0])
        if shape is None or sum(size is None for size in shape) > 1:
            return False
        changed.output[0] = self._names.value(f"{node.output[0]}/merged")
        self.parted[node.output[0]] = changed.output[0]
        whole = self._ints(node.output[0], [-1 if size is None else size for size in shape])
        self._nodes.append(helper.make_node("Reshape", [changed.output[0], whole], [node.output[0]]))
        return True

    def _merged(self, name: str, place: int) -> str | None:
        """The name of an operand that broadcasts, with the two axes merged; None if they cannot be."""
        rank = self._values.rank(name)
        array = self._values.constant(name)
        if rank is None or rank < MAX_RANK - place:
            return None if rank is None else name
        if array is None:
            return None
        whole = array.reshape([1] * (MAX_RANK + 1 - rank) + list(array.shape))
        first, second = whole.shape[place : place + 2]
        if first != 1 or second != 1:
            return None
        found = self._names.value(f"{name}/merged")
        self._constants.append((found, np.squeeze(whole, place)))
        return found

    def _ints(self, beside: str, numbers: Sequence[int]) -> str:
        found = self._names.value(f"{beside}/axes")
        self._constants.append((found, np.array(numbers, np.int64)))
        return found


def _copy(node: NodeProto) -> NodeProto:
    return NodeProto.FromString(node.SerializeToString())
