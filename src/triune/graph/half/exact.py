"""What makes a value: how far back fp32 must begin for a node to which fp16's rounding counts."""

from collections.abc import Collection, Iterator

import numpy as np
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
        *(
            "Unsqueeze",
            "Concat",
            "Slice",
            "Split",
            "Expand",
            "Tile",
            "Gather",
            "GatherElements",
            "GatherND",
            "Range",
            "CumSum",
            "ReduceSum",
            "ReduceMax",
            "ReduceMin",
            "Pad",
            "Trilu",
        ),
        *("Conv", "DequantizeLinear"),
    ]
)
"""Operators that compute places and angles of the model's inputs and of whole numbers."""

_MAKES_SMALL = frozenset(["Softmax", "Sigmoid", "Exp", "Div", "Mul", "Pow", "Sub", "ReduceSum", "ReduceMean"])
_PRODUCTS = frozenset(["MatMul", "Gemm", "Conv"])
_COMPARES = frozenset(["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
_RANKS = frozenset(["ArgMax", "ArgMin", "TopK"])
"""Operators that tell numbers apart which fp16 may not."""

VIEWS = frozenset(["Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze"])
"""Operators that give the elements of their operand another shape."""

SHIFTS = VIEWS | {"Add", "Sub", "Clip", "Max", "Min"}
"""Operators whose results are of the size of their first operand, and whole where it is."""

_GUARDS = VIEWS | {"Clip", "Max", "Add", "Where", "Gather"}
_SQUARES = frozenset(["MatMul", "Gemm", "Conv", "Mul", "ReduceSum"])
_MEANS = frozenset(["ReduceMean", "ReduceSum", "GlobalAveragePool", "AveragePool", "MatMul", "Conv"])
_SCORES = VIEWS | {"Add", "Sub", "Mul", "Div", "Neg", "Where", "Max", "Min", "Clip", "Cast", "Slice", "Expand"}
_SCALES = VIEWS | {"Mul", "Div", "Neg"}

_SCALES_DOWN = _PRODUCTS | frozenset(
    [
        *("Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Sigmoid", "Tanh", "ReduceMean"),
        *("LayerNormalization", "BatchNormalization", "InstanceNormalization"),
    ]
)
_KEEPS_SIZE = SHIFTS | frozenset(
    [
        *("Neg", "Abs", "Relu", "Concat", "Slice", "Split", "Gather", "Expand", "Tile", "Where", "Cast"),
        *("Floor", "Ceil", "Round", "ReduceMax", "ReduceMin", "ReduceSum", "CumSum"),
    ]
)

_DEEPEST = 16


class Makers:
    """The nodes of a graph by what they make, and their readers."""

    def __init__(self, graph: GraphProto, values: Values, bounds: Bounds) -> None:
        self.values = values
        self.bounds = bounds
        self._makers = {name: node for node in graph.node for name in node.output if name}
        self._inputs = {value.name for value in graph.input}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = names_read(graph) - {name for node in graph.node for name in node.input}
        self._outputs |= {value.name for value in graph.output}

    def of(self, name: str) -> NodeProto | None:
        """The node of this graph that makes a value."""
        return self._makers.get(name)

    def is_given(self, name: str) -> bool:
        """Is it an input of this graph?"""
        return name in self._inputs

    def are_read_by(self, name: str, kinds: Collection[str]) -> bool:
        """Are all readers of `name`, which is no output, of `kinds`?"""
        readers = self._readers.get(name, [])
        return bool(readers) and name not in self._outputs and all(reader.op_type in kinds for reader in readers)

    def is_scaled_down(self, name: str, depth: int = 0) -> bool:
        """Is `name`, whole numbers of any size, divided, normalized or weighed, so that fp16 holds what results?"""
        if depth > _DEEPEST:
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
                case _ if reader.op_type in _SCALES_DOWN:
                    return True
                case _ if reader.op_type in _KEEPS_SIZE and self.is_scaled_down(reader.output[0], depth + 1):
                    return True
                case _:
                    pass
        return False

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
    """What computes a place (a float that becomes an integer), an angle, a comparison, a remainder or a difference.

    Only of inputs and whole numbers: what layers compute is rounded anyway. A row of a table that is rounded to fp16
    may lie on the other side of the split of a tree.
    """
    if not node.input:
        return []
    operand = node.input[0]
    if makers.values.elem_type(operand) != TensorProto.FLOAT:
        return []
    if node.op_type in _COMPARES:
        return _compared(node, makers)
    if node.op_type in ("Add", "Sub"):
        return _beside_one(node, makers) or _difference(node, makers)
    if node.op_type == "Log":
        total = makers.of(operand)
        return [total, node] if total is not None and total.op_type == "Add" and _has_one(total, makers) else []
    if node.op_type in _RANKS or node.op_type == "Softmax":
        return [node] if makers.is_given(operand) else []
    if magnitude(makers.bounds.of(operand)) <= 8:
        return []
    if node.op_type not in ("Sin", "Cos", "Tan") and not _is_place(node):
        return []
    if makers.is_given(operand):
        return [node]
    found = _exact(operand, makers, {})
    return [*found, node] if found else []


def _is_place(node: NodeProto) -> bool:
    """Does it take what is behind the point, or the part of a number that a divisor leaves?"""
    return node.op_type in ("Floor", "Ceil", "Round", "Mod") or (
        node.op_type == "Cast" and attributes_of(node).get("to") in _INTEGERS
    )


def _beside_one(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """exp(x) - 1, of which fp16 leaves nothing where x is small."""
    exponential = makers.of(node.input[0])
    is_one = exponential is not None and exponential.op_type == "Exp" and _has_one(node, makers)
    return [exponential, node] if exponential is not None and is_one else []


def _has_one(node: NodeProto, makers: Makers) -> bool:
    """Does it add or subtract 1?"""
    arrays = [makers.values.constant(name) for name in node.input]
    return any(array is not None and array.size == 1 and abs(array.reshape(-1)[0]) == 1 for array in arrays)


def _difference(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """A difference of numbers beyond 2048 that are whole or have been rounded, which may be small, and what makes them.

    Of `x - floor(x)` fp16 leaves nothing, nor of the distance from 3000 to 3001.
    """
    found = [node]
    is_rounded = False
    for operand in node.input:
        array = makers.values.constant(operand)
        if array is not None and np.abs(array.astype(np.float64)).max(initial=0) < _EXACT:
            return []
        if array is not None or makers.is_given(operand):
            continue
        before = _exact(operand, makers, {})
        if not before or any(each.op_type in _PRODUCTS for each in before):
            return []
        found += before
        is_rounded = is_rounded or any(_is_beyond(each, makers) for each in before)
    return found if is_rounded and magnitude(makers.bounds.of(node.output[0])) > _EXACT else []


def _is_beyond(node: NodeProto, makers: Makers) -> bool:
    """Does it make whole numbers that fp16 has not, for all that is known?"""
    is_of_integers = node.op_type == "Cast" and makers.values.elem_type(node.input[0]) in _INTEGERS
    is_rounded = node.op_type in ("Floor", "Ceil", "Round", "Mod")
    return (is_of_integers or is_rounded) and magnitude(makers.bounds.of(node.output[0])) > _EXACT


def _compared(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """A comparison and what makes both of its operands, if that is exact and no product of matrices."""
    found = [node]
    for operand in node.input:
        if makers.of(operand) is not None:
            before = _exact(operand, makers, {})
            if not before or any(each.op_type in _PRODUCTS for each in before):
                return []
            found += before
    return found


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


def _made(names: list[str], makers: Makers) -> Iterator[NodeProto]:
    """What makes the values of these names, the last one first. The caller may add names while it reads."""
    for _ in range(_DEEPEST):
        if not names:
            return
        node = makers.of(names.pop())
        if node is not None:
            yield node


def small_makers(log: NodeProto, makers: Makers) -> Iterator[NodeProto]:
    """What makes the small numbers that a logarithm is of, through guards: shares, exponentials, quotients."""
    names = [log.input[0]]
    for node in _made(names, makers):
        if node.op_type in _MAKES_SMALL:
            yield node
        elif node.op_type in _GUARDS:
            yield node
            names += [name for name in node.input if makers.values.elem_type(name) == TensorProto.FLOAT]


def score_makers(softmax: NodeProto, makers: Makers) -> Iterator[NodeProto]:
    """What sums, masks and scales the scores of a Softmax: a sum with a mask of -10000 is rounded to 8."""
    names = [softmax.input[0]]
    for node in _made(names, makers):
        if node.op_type in _SCORES:
            yield node
            names += [name for name in node.input if makers.values.elem_type(name) == TensorProto.FLOAT]


def variance_makers(difference: NodeProto, makers: Makers) -> list[NodeProto]:
    """What makes a mean of squares less the square of a mean, with that difference: it is far smaller than both."""
    if difference.op_type != "Sub":
        return []
    squares, square = (_unscaled(name, makers) for name in difference.input)
    if not squares or not square or squares[-1].op_type not in _MEANS or not _is_square(square[-1], makers):
        return []
    mean = _unscaled(square[-1].input[0], makers)
    of = makers.of(squares[-1].input[0])
    if not mean or mean[-1].op_type not in _MEANS or of is None or not _is_square(of, makers):
        return []
    return [*squares, of, *square, *mean, difference]


def _unscaled(name: str, makers: Makers) -> list[NodeProto]:
    """The nodes that scale and reshape a value, and the one that makes it before; none where it is given."""
    found: list[NodeProto] = []
    for _ in range(_DEEPEST):
        node = makers.of(name)
        if node is None:
            return []
        found.append(node)
        is_scale = node.op_type in ("Mul", "Div") and makers.values.constant(node.input[1]) is not None
        if not is_scale and node.op_type not in VIEWS:
            return found
        name = node.input[0]
    return []


def _is_square(node: NodeProto, makers: Makers) -> bool:
    if node.op_type == "Pow":
        power = makers.values.constant(node.input[1])
        return power is not None and power.size == 1 and power.reshape(-1)[0] == 2
    return node.op_type == "Mul" and node.input[0] == node.input[1]


def square_partners(total: NodeProto, makers: Makers) -> Iterator[NodeProto]:
    """What makes the operands of a sum of squares: products such as -2 * x * y in |x - y|^2 are as large."""
    names = list(total.input)
    for node in _made(names, makers):
        if node.op_type in _SCALES:
            yield node
            names += list(node.input)
        elif node.op_type in _SQUARES:
            yield node
