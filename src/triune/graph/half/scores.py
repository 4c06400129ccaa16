"""Products of matrices that are scaled down afterwards, such as the scores of attention."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from triune.graph.half.bounds import MOST_ELEMENTS
from triune.graph.names import Names
from triune.graph.values import Values, names_read_by, subgraphs_of

_SMALLEST_SCALE = 2.0**-10
"""By a smaller one, operands that are small themselves would leave the normal numbers of fp16."""

_VIEWS = frozenset(["Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice"])
"""Operators whose results are elements of their first operand. It makes no difference whether those are scaled."""

_CHOICES = {"Add": (0, 1), "Sub": (0, 1), "Where": (1, 2)}
"""Operators whose results are scaled where these operands are."""

_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class _Scale:
    """What a value is scaled by.

    Attributes:
        op_type: Mul or Div.
        name: the number, of one element and one dimension at most, that is computed; empty where it is a constant.
        number: the constant.
    """

    op_type: str
    name: str
    number: float = 1.0


def scale_before(model: ModelProto) -> None:
    """Given `(q @ k) * scale` or `(q @ k) / divisor`, of one number that may be small. Result: `(q * scale) @ k`.

    The product itself may be beyond fp16 where the scaled one is not. It is rounded as often as before. What stands
    between the product and the scale may be reshaped, transposed, masked, or summed with what is scaled then, too. Of a
    constant so small that it would take operands out of fp16 a part is left behind.

    Args:
        model: normalized; changed.
    """
    _scale_before(model.graph, None, Names(model.graph))


def _scale_before(graph: GraphProto, outer: Values | None, names: Names) -> None:
    values = Values(graph, outer)
    for node in graph.node:
        for inner in subgraphs_of(node):
            _scale_before(inner, values, names)
    scores = _Scores(graph, values, names)
    for node in list(graph.node):
        scores.scale_before(node)
    kept = [_copy(node) for node in scores.nodes]
    del graph.node[:]
    graph.node.extend(kept)


class _Scores:
    """The nodes of a graph as they are to be.

    Attributes:
        nodes: in their order.
    """

    def __init__(self, graph: GraphProto, values: Values, names: Names) -> None:
        self.nodes = list(graph.node)
        self._graph = graph
        self._values = values
        self._names = names
        self._makers = {name: node for node in graph.node for name in node.output if name}
        self._reads = Counter(
            name for node in graph.node for name in (*node.input, *(names_read_by(node) - {*node.input}))
        )
        self._reads.update(value.name for value in graph.output)

    def scale_before(self, last: NodeProto) -> None:
        """Scale what a node scales before it is multiplied, if that is how it came about."""
        for name, scale in self._scales_of(last):
            chain = self._chain(name, scale)
            if not any(node.op_type == "MatMul" for node in chain):
                continue
            pushed = scale
            if not scale.name and abs(scale.number) < _SMALLEST_SCALE:
                pushed = _Scale("Mul", "", _SMALLEST_SCALE)
            place = next(index for index, node in enumerate(self.nodes) if node is last)
            if scale.name:
                # The scale may be computed after the product.
                ids = {id(node) for node in chain}
                moved = [node for node in self.nodes[:place] if id(node) in ids]
                self.nodes[: place + 1] = [*(node for node in self.nodes[:place] if id(node) not in ids), *moved, last]
            for node in chain:
                self._scale_operands(node, pushed, chain)
            self._scale_less(last, name, scale, pushed)
            return

    def _scales_of(self, node: NodeProto) -> list[tuple[str, _Scale]]:
        """The operands of a product or quotient that may be scaled by the other one, which is one number."""
        if node.op_type not in ("Mul", "Div"):
            return []
        found: list[tuple[str, _Scale]] = []
        for place in (1, 0) if node.op_type == "Mul" else (1,):
            name, by = node.input[1 - place], node.input[place]
            rank, sizes = self._values.rank(name), self._values.shape(by)
            if rank is None or sizes is None or len(sizes) > rank or any(size != 1 for size in sizes):
                continue
            array = self._values.constant(by)
            if array is None:
                if len(sizes) <= 1:
                    found.append((name, _Scale(node.op_type, by)))
                continue
            number = float(array.reshape(-1)[0])
            if node.op_type == "Div":
                number = 1 / number if number else 0.0
            if 0 < abs(number) < 1:
                found.append((name, _Scale("Mul", "", number)))
        return found

    def _chain(self, name: str, scale: _Scale, depth: int = 0) -> list[NodeProto]:
        """The nodes between a product of matrices and its scale, and the product; none where none leads to one."""
        node = self._makers.get(name)
        if node is None or self._reads[name] != 1 or depth > _DEEPEST or not self._values.rank(name):
            return []
        if node.op_type == "MatMul":
            return [node] if self._values.rank(node.input[0]) and self._values.rank(node.input[1]) else []
        if node.op_type in _VIEWS:
            before = self._chain(node.input[0], scale, depth + 1)
            return [*before, node] if before else []
        if node.op_type not in _CHOICES:
            return []
        before: list[NodeProto] = []
        for place in _CHOICES[node.op_type]:
            operand = node.input[place]
            # What a number that is not known makes of a mask may be beyond fp16.
            if scale.name and node.op_type == "Where" and self._values.constant(operand) is not None:
                return []
            before += self._chain(operand, scale, depth + 1)
        return [*before, node] if before else []

    def _scale_operands(self, node: NodeProto, scale: _Scale, chain: list[NodeProto]) -> None:
        """Scale what a node of a chain reads that is not scaled by another one."""
        scaled = {id(each) for each in chain}
        if node.op_type == "MatMul":
            # A weight is scaled when the model runs, which takes longer than to scale what it is multiplied by.
            place = 0 if self._values.tensor(node.input[0]) is None else 1
            node.input[place] = self._scaled(node.input[place], scale, node)
            return
        for place in _CHOICES.get(node.op_type, ()):
            if id(self._makers.get(node.input[place])) not in scaled:
                node.input[place] = self._scaled(node.input[place], scale, node)

    def _scaled(self, name: str, scale: _Scale, reader: NodeProto) -> str:
        """A value scaled, just before the node that reads it."""
        array = self._values.constant(name)
        if array is not None and not scale.name and array.size <= MOST_ELEMENTS:
            return self._constant(f"{name}/scaled", (array * np.float32(scale.number)).astype(np.float32))
        by = scale.name or self._constant(f"{name}/scale", np.array(scale.number, np.float32))
        result = self._names.value(f"{name}/scaled")
        node = helper.make_node(scale.op_type, [name, by], [result], name=result)
        place = next(index for index, each in enumerate(self.nodes) if each is reader)
        self.nodes.insert(place, node)
        return result

    def _scale_less(self, last: NodeProto, name: str, scale: _Scale, pushed: _Scale) -> None:
        """The node scaled what is scaled now: take it out, or leave it what is left of its scale."""
        if scale.name or scale.number == pushed.number:
            self.nodes = [node for node in self.nodes if node is not last]
            maker = self._makers[name]
            maker.output[list(maker.output).index(name)] = last.output[0]
            self._makers[last.output[0]] = maker
            return
        rest = self._constant(f"{last.output[0]}/scale", np.array(scale.number / pushed.number, np.float32))
        last.op_type = "Mul"
        del last.input[:]
        last.input.extend([name, rest])

    def _constant(self, wanted: str, array: NDArray[np.float32]) -> str:
        name = self._names.value(wanted)
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
