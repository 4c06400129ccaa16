"""What makes a value: how far back fp32 must begin for a node to which fp16's rounding counts."""

from collections.abc import Collection, Iterator

from onnx import GraphProto, NodeProto, TensorProto

from triune.graph.half.bounds import Bounds, magnitude
from triune.graph.values import Values, attributes_of, names_read

_INTEGERS = (TensorProto.INT32, TensorProto.INT64)

_EXACT = 2048.0
"""fp16 holds all whole numbers up to here."""

_ARITHMETIC = frozenset(
    [
        *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Max", "Min", "Clip", "Where", "Pow", "Sqrt", "Reciprocal", "Exp"),
        *("Floor", "Ceil", "Round", "Mod", "MatMul", "Gemm", "Cast", "Identity", "Reshape", "Transpose", "Squeeze"),
        *("Unsqueeze", "Concat", "Slice", "Split", "Expand", "Tile", "Gather", "Range", "CumSum", "ReduceSum"),
        *("Conv", "DequantizeLinear"),
    ]
)
"""Operators that compute places and angles of the model's inputs and of whole numbers."""

_MAKES_SMALL = frozenset(["Softmax", "Sigmoid", "Exp", "Div", "Mul", "Pow", "Sub", "ReduceSum", "ReduceMean"])
_VIEWS = frozenset(["Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze"])
_GUARDS = _VIEWS | {"Clip", "Max", "Add", "Where", "Gather"}
_SQUARES = frozenset(["MatMul", "Gemm", "Conv", "Mul", "ReduceSum"])
_SCALES = _VIEWS | {"Mul", "Div", "Neg"}

_DEEPEST = 16


class Makers:
    """The nodes of a graph by what they make, and their readers."""

    def __init__(self, graph: GraphProto, values: Values, bounds: Bounds) -> None:
        self.values = values
        self.bounds = bounds
        self._makers = {name: node for node in graph.node for name in node.output if name}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = names_read(graph) - {name for node in graph.node for name in node.input}
        self._outputs |= {value.name for value in graph.output}

    def of(self, name: str) -> NodeProto | None:
        """The node of this graph that makes a value."""
        return self._makers.get(name)

    def are_read_by(self, name: str, kinds: Collection[str]) -> bool:
        """Are all readers of `name`, which is no output, of `kinds`?"""
        readers = self._readers.get(name, [])
        return bool(readers) and name not in self._outputs and all(reader.op_type in kinds for reader in readers)

    def end_in(self, name: str, kinds: Collection[str], depth: int = 0) -> bool:
        """Do all ways from `name` lead, by products and sums, to nodes of `kinds`?"""
        readers = self._readers.get(name, [])
        if not readers or name in self._outputs or depth > _DEEPEST:
            return False
        return all(
            reader.op_type in kinds
            or (reader.op_type in ("Mul", "Add", "Pow") and self.end_in(reader.output[0], kinds, depth + 1))
            for reader in readers
        )


def exact_makers(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """What computes a place (a float that becomes an integer) or an angle of inputs and whole numbers alone."""
    if not node.input:
        return []
    operand = node.input[0]
    if makers.values.elem_type(operand) != TensorProto.FLOAT or magnitude(makers.bounds.of(operand)) <= 8:
        return []
    is_place = node.op_type in ("Floor", "Ceil", "Round") or (
        node.op_type == "Cast" and attributes_of(node).get("to") in _INTEGERS
    )
    if not is_place and node.op_type not in ("Sin", "Cos", "Tan"):
        return []
    if is_place and magnitude(makers.bounds.of(operand)) <= 1:
        return []
    found = _exact(operand, makers, {})
    return [*found, node] if found else []


def _exact(name: str, makers: Makers, seen: dict[str, bool], depth: int = 0) -> list[NodeProto]:
    """The nodes that make it, if all that is computed with is exact; none otherwise."""
    node = makers.of(name)
    if node is None or node.op_type not in _ARITHMETIC or depth > _DEEPEST:
        return []
    found = [node]
    if makers.values.elem_type(node.input[0]) == TensorProto.FLOAT or node.op_type == "Where":
        for operand in node.input:
            if makers.of(operand) is None or makers.values.elem_type(operand) != TensorProto.FLOAT:
                continue
            if operand not in seen:
                seen[operand] = True
                before = _exact(operand, makers, seen, depth + 1)
                if not before:
                    seen[operand] = False
                found += before
            if not seen[operand]:
                return []
    return found


def small_makers(log: NodeProto, makers: Makers) -> Iterator[NodeProto]:
    """What makes the small numbers that a logarithm is of, through guards: shares, exponentials, quotients."""
    names = [log.input[0]]
    for _ in range(_DEEPEST):
        if not names:
            return
        node = makers.of(names.pop())
        if node is None:
            continue
        if node.op_type in _MAKES_SMALL:
            yield node
        elif node.op_type in _GUARDS:
            yield node
            names += [name for name in node.input if makers.values.elem_type(name) == TensorProto.FLOAT]


def square_partners(total: NodeProto, makers: Makers) -> Iterator[NodeProto]:
    """What makes the operands of a sum of squares: products such as -2 * x * y in |x - y|^2 are as large."""
    names = list(total.input)
    for _ in range(_DEEPEST):
        if not names:
            return
        node = makers.of(names.pop())
        if node is None:
            continue
        if node.op_type in _SCALES:
            yield node
            names += list(node.input)
        elif node.op_type in _SQUARES:
            yield node
