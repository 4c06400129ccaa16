"""Find which nodes can compute on (B, C, 1, S), the Neural Engine's layout, without adding Transposes."""

from collections.abc import Sequence

from onnx import NodeProto

from triune.graph.ane.borders import Borders, is_swap
from triune.graph.axes import positive
from triune.graph.index import Index
from triune.graph.values import attributes_of

UNARY = frozenset(
    [
        *("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Log", "Neg", "Not", "Reciprocal", "Round", "Sigmoid", "Sign"),
        *("Sin", "Sqrt", "Tanh", "Cast", "Relu", "LeakyRelu", "Elu", "Softplus", "Softsign", "HardSigmoid", "Gelu"),
        "Clip",
    ]
)
"""Elementwise operators with one tensor as operand; other operands are scalars."""

BROADCAST = frozenset(
    [
        *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu", "Where"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor"),
    ]
)
"""Elementwise operators of several operands that broadcast."""

REDUCE = frozenset(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
ALONG = frozenset(["Softmax", "Split", "Concat"])
"""Operators with an attribute `axis`."""


class Flow:
    """Finds the values of a graph that are in the layout (B, C, 1, S), or can be without adding Transposes.

    Attributes:
        reached: the names of values that can be computed in the layout.
        wanted: the names of values that a node transposes into the layout, and of operands from which these values are
            computed.
    """

    def __init__(self, index: Index, borders: Borders, nodes: Sequence[NodeProto]) -> None:
        """`nodes` are the nodes of the graph of `index`, in order."""
        self._index = index
        self._borders = borders
        self.wanted: set[str] = set()
        self.reached: set[str] = set()
        for node in reversed(nodes):
            if is_swap(node):
                self.wanted.add(node.input[0])
            elif any(name in self.wanted for name in node.output) and self.operands(node):
                self.wanted.update(self.operands(node) or ())
        for node in nodes:
            if self.is_reached(node):
                self.reached.update(node.output)

    def operands(self, node: NodeProto) -> list[str] | None:
        """The operands (B, S, C) that a node would read in the layout; None if it cannot compute there."""
        index = self._index
        if any(index.rank(name) != 3 for name in node.output):
            return None
        if node.op_type in BROADCAST or node.op_type == "Concat":
            given = [name for name in node.input if not self.needs_no_transpose(name)]
        elif node.op_type == "LayerNormalization" or node.op_type in UNARY | REDUCE | ALONG or node.op_type == "Slice":
            given = [node.input[0]]
        else:
            return None
        if any(index.rank(name) != 3 or index.is_constant(name) for name in given):
            return None
        return given if given and self._can_move(node) else None

    def needs_no_transpose(self, name: str) -> bool:
        """Whether an operand need not enter the layout: a constant, or a value of one element that broadcasts."""
        dims = self._index.dims(name)
        if dims is None or len(dims) > 3:
            return False
        return self._index.is_constant(name) or all(dim == 1 for dim in dims)

    def is_inside(self, name: str) -> bool:
        """Whether a value can be computed in the layout (B, C, 1, S), or is the result of a Transpose out of it."""
        return name in self.reached or self._borders.is_out(name)

    def is_reached(self, node: NodeProto) -> bool:
        """Whether a node can compute in the layout without more Transposes than before."""
        operands = self.operands(node)
        if not operands:
            return False
        is_wanted = any(name in self.wanted for name in node.output)
        inside = [name for name in dict.fromkeys(operands) if self.is_inside(name)]
        others = [name for name in dict.fromkeys(operands) if not self.is_inside(name)]
        if not inside:
            # If all operands are transposed into the layout for other nodes anyway, this node can read them there.
            return is_wanted and all(self._borders.is_entered(name) for name in others)
        if not is_wanted and any(not self._borders.is_entered(name) for name in others):
            return False
        is_last = all(self._index.only_reader(name) is not None for name in inside)
        return is_wanted or len(inside) > 1 or is_last

    def _can_move(self, node: NodeProto) -> bool:
        """Whether a node's attributes and other inputs allow it to compute in the layout."""
        index, attributes = self._index, attributes_of(node)
        if node.op_type == "LayerNormalization":
            is_last = positive(int(attributes.get("axis", -1)), 3) == 2
            return (
                is_last and not any(node.output[1:]) and all(index.rank(name) == 1 for name in node.input[1:] if name)
            )
        if node.op_type in REDUCE:
            return bool(attributes.get("keepdims", 1)) and bool(index.ints(node, 1))
        if node.op_type == "Slice":
            return index.ints(node, 3) is not None
        return True
