"""Find an interval that contains all elements of a tensor, whatever the model's inputs are, by interval arithmetic."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from triune.graph.half.intervals import (
    ANY,
    BINARY,
    UNARY,
    Interval,
    ceil,
    even_power,
    exact_power,
    multiplied,
    remainder,
    summed,
    union,
)
from triune.graph.half.operators import KEEP_BOUNDS, KEEP_BOUNDS_OR_ZERO
from triune.graph.values import Values, attributes_of

_UNIT: Interval = (0.0, 1.0)
_SIGNED_UNIT: Interval = (-1.0, 1.0)

MOST_ELEMENTS = 1 << 20
"""Constants with more elements are not read: they are weights, and reading them takes time."""

_KNOWN: Mapping[str, Interval] = {
    **dict.fromkeys(["Sigmoid", "HardSigmoid", "Softmax"], _UNIT),
    **dict.fromkeys(["Tanh", "Erf", "Sin", "Cos", "Softsign", "Sign"], _SIGNED_UNIT),
}


class Bounds:
    """The interval of each value of a graph. Call `learn` with every node, in the graph's order."""

    def __init__(self, values: Values, outer: "Bounds | None" = None) -> None:
        """For a subgraph, `outer` has the intervals of the values of the outer graph."""
        self._values = values
        self._outer = outer
        self._found: dict[str, Interval] = {}
        self._producers: dict[str, NodeProto] = {}

    def of(self, name: str) -> Interval:
        """The interval of a value; `ANY`, from -infinity to infinity, where nothing is known."""
        if name not in self._found:
            self._found[name] = self._of_constant_or_outer(name)
        return self._found[name]

    def know(self, name: str, interval: Interval) -> None:
        """Set the interval of a value."""
        self._found[name] = interval

    def learn(self, node: NodeProto) -> None:
        """Compute the intervals of a node's results from those of its operands."""
        interval = self._of_node(node)
        for position, name in enumerate(node.output):
            if name:
                is_index = node.op_type == "TopK" and position == 1
                self._found[name] = self._indices(node) if is_index else interval
                self._producers[name] = node

    def _of_constant_or_outer(self, name: str) -> Interval:
        tensor = self._values.tensor(name)
        if tensor is None:
            if self._values.elem_type(name) == TensorProto.BOOL:
                return _UNIT
            return ANY if self._outer is None else self._outer.of(name)
        array = self._values.constant(name) if 0 < math.prod(tensor.dims) <= MOST_ELEMENTS else None
        if array is None or array.dtype.kind not in "biuf":
            return ANY
        if array.dtype.kind == "f" and np.isnan(array).any():
            return ANY
        return float(array.min()), float(array.max())

    def _of_node(self, node: NodeProto) -> Interval:
        op = node.op_type
        if self._values.elem_type(node.output[0]) == TensorProto.BOOL or op in _KNOWN:
            return _KNOWN.get(op, _UNIT)
        if not node.input:
            return ANY
        given = [self.of(name) if name else ANY for name in node.input]
        if op in KEEP_BOUNDS:
            return given[0]
        if op in KEEP_BOUNDS_OR_ZERO:
            return union([given[0], (0.0, 0.0)])
        match op:
            case "Cast" | "Floor" | "Ceil" | "Round":
                return math.floor(given[0][0]) if math.isfinite(given[0][0]) else given[0][0], ceil(given[0][1])
            case "Concat" | "Max" | "Min" | "Where" | "ScatterND" | "ScatterElements":
                return self._merged(node, given)
            case "Clip":
                return self._clipped(node, given)
            case "ReduceSum":
                total = summed(given[0], self.count(node))
                return (1.0, total[1]) if self._is_sum_of_softmax(node) else total
            case "CumSum":
                # The results are the sums of the first 0 (if exclusive), 1, ..., all elements of the axis.
                return union([(0.0, 0.0), given[0], summed(given[0], self._axis_size(node))])
            case "ReduceProd":
                return multiplied(given[0], self.count(node))
            case "MatMul" | "Gemm" | "Conv" | "ConvTranspose":
                # If no operand has negative elements, neither has the sum of products, unless attributes of Gemm
                # change the sign.
                has_sign = all(low >= 0 for low, _ in given) and all(
                    value >= 0 for name, value in attributes_of(node).items() if name in ("alpha", "beta")
                )
                return (0.0, math.inf) if has_sign else ANY
            case "ConstantOfShape":
                number = float(numpy_helper.to_array(attributes_of(node)["value"]).item()) if node.attribute else 0.0
                return ANY if math.isnan(number) else (number, number)
            case "ArgMax" | "ArgMin":
                return self._indices(node)
            case "NonZero":
                shape = self._values.shape(node.input[0])
                return 0.0, max((math.inf if size is None else size - 1.0 for size in shape or (None,)), default=0.0)
            case "Range":
                return union(given[:2])
            case "Mod":
                return remainder(given[0], given[1], is_fmod=bool(attributes_of(node).get("fmod", 0)))
            case "Sub" if self._is_below_maximum(node):
                return -math.inf, 0.0
            case "Div" if self._divides_by_maximum(node):
                return _SIGNED_UNIT
            case "Div" if given[0][0] >= 0 and self._divides_by_sum(node):
                return _UNIT
            case "Mul" if node.input[0] == node.input[1]:
                return even_power(given[0], 2.0)
            case "Pow":
                return self._power(node, given[0])
            case _:
                rule = UNARY.get(op)
                if rule is not None:
                    return rule(given[0])
                pair = BINARY.get(op)
                return pair(given[0], given[1]) if pair is not None and len(given) == 2 else ANY

    def _merged(self, node: NodeProto, given: Sequence[Interval]) -> Interval:
        match node.op_type:
            case "Max":
                return max(low for low, _ in given), max(high for _, high in given)
            case "Min":
                return min(low for low, _ in given), min(high for _, high in given)
            case "Where":
                return union(given[1:])
            case "Concat":
                return union(given)
            case _:
                is_put = attributes_of(node).get("reduction", "none") in ("none", "max", "min")
                return union([given[0], given[2]]) if is_put else ANY

    def _clipped(self, node: NodeProto, given: Sequence[Interval]) -> Interval:
        low, high = given[0]
        if len(node.input) > 1 and node.input[1]:
            low, high = max(low, given[1][0]), max(high, given[1][1])
        if len(node.input) > 2 and node.input[2]:
            low, high = min(low, given[2][0]), min(high, given[2][1])
        return low, high

    def _power(self, node: NodeProto, base: Interval) -> Interval:
        exponent = self._values.constant(node.input[1])
        if exponent is None or exponent.size != 1:
            return ANY
        power = float(exponent.reshape(-1)[0])
        if power == 0.5:
            return UNARY["Sqrt"](base)
        if power < 0 < base[0]:
            return exact_power(base[1], power), exact_power(base[0], power)
        if power > 0 and power % 2 == 0:
            return even_power(base, power)
        return (0.0, math.inf) if base[0] >= 0 else ANY

    def _is_below_maximum(self, node: NodeProto) -> bool:
        """Whether a Sub computes x - max(x)."""
        largest = self._producers.get(node.input[1])
        return largest is not None and largest.op_type == "ReduceMax" and largest.input[0] == node.input[0]

    def _is_sum_of_softmax(self, node: NodeProto) -> bool:
        """Whether a node sums exp(x - max(x)) along the axes of the max, so that one term is 1 and the sum at least
        1.
        """
        exponential = self._producers.get(node.input[0])
        below = self._producers.get(exponential.input[0]) if exponential and exponential.op_type == "Exp" else None
        if below is None or below.op_type != "Sub" or not self._is_below_maximum(below):
            return False
        largest = self._producers[below.input[1]]
        axes = [self._values.constant(each.input[1]) if len(each.input) > 1 else None for each in (node, largest)]
        return axes[0] is not None and axes[1] is not None and np.array_equal(axes[0], axes[1])

    def _divides_by_sum(self, node: NodeProto) -> bool:
        """Whether a Div computes x / sum(x)."""
        total = self._producers.get(node.input[1])
        return total is not None and total.op_type == "ReduceSum" and total.input[0] == node.input[0]

    def _divides_by_maximum(self, node: NodeProto) -> bool:
        """Whether a Div computes x / max(|x|), or x / max(max(|x|), limit)."""
        limited = self._producers.get(node.input[1])
        names = limited.input if limited is not None and limited.op_type == "Max" else node.input[1:]
        largest = [each for name in names if (each := self._producers.get(name)) is not None]
        sizes = [self._producers.get(each.input[0]) for each in largest if each.op_type == "ReduceMax"]
        return any(each is not None and each.op_type == "Abs" and each.input[0] == node.input[0] for each in sizes)

    def _indices(self, node: NodeProto) -> Interval:
        """The interval of the indices that a TopK, ArgMax or ArgMin returns: 0 to the size of its axis - 1."""
        shape, attributes = self._values.shape(node.input[0]), attributes_of(node)
        size = shape[int(attributes.get("axis", -1 if node.op_type == "TopK" else 0))] if shape else None
        return 0.0, math.inf if size is None else max(size - 1.0, 0.0)

    def _axis_size(self, node: NodeProto) -> float:
        """The size of the axis of a CumSum; infinite if it is not known."""
        shape, axis = self._values.shape(node.input[0]), self._values.constant(node.input[1])
        size = shape[int(axis.reshape(-1)[0])] if shape and axis is not None else None
        return math.inf if size is None else float(size)

    def count(self, node: NodeProto) -> float:
        """The number of elements that a reduction combines into one; infinite where a size or the axes are not
        known.
        """
        shape = self._values.shape(node.input[0])
        if shape is None:
            return math.inf
        reduced = list(range(len(shape)))
        if len(node.input) > 1 and node.input[1]:
            axes = self._values.constant(node.input[1])
            if axes is None:
                return math.inf
            if axes.size or attributes_of(node).get("noop_with_empty_axes", 0):
                reduced = [int(each) % max(len(shape), 1) for each in axes.reshape(-1)]
        return math.prod(math.inf if shape[axis] is None else float(shape[axis] or 0) for axis in reduced)
