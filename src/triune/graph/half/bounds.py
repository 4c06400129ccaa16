"""How small and how large the values of a graph can be: interval arithmetic, without looking at any input."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from onnx import NodeProto, TensorProto

from triune.graph.values import Values, attributes_of

Interval: TypeAlias = tuple[float, float]
"""The lowest and the highest that any element can be."""

ANY: Interval = (-math.inf, math.inf)
_UNIT: Interval = (0.0, 1.0)
_SIGNED_UNIT: Interval = (-1.0, 1.0)

MOST_ELEMENTS = 1 << 20
"""Of a larger constant nothing is known: it is a weight, and to look at it takes time."""

_KNOWN: Mapping[str, Interval] = {
    **dict.fromkeys(["Sigmoid", "HardSigmoid", "Softmax"], _UNIT),
    **dict.fromkeys(["Tanh", "Erf", "Sin", "Cos", "Softsign", "Sign"], _SIGNED_UNIT),
}

_PASSES = frozenset(
    [
        *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "Slice", "Expand", "Tile", "Gather"),
        *("GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth", "ReverseSequence", "TopK"),
        *("ReduceMax", "ReduceMin", "ReduceMean", "MaxPool"),
    ]
)
"""Operators whose results lie where the elements of their first operand lie."""

_WITH_ZERO = frozenset(["Pad", "Trilu", "AveragePool"])
"""As `_PASSES`, or 0."""


class Bounds:
    """Intervals of a graph's values, found node by node in their order."""

    def __init__(self, values: Values, outer: "Bounds | None" = None) -> None:
        """`outer` knows the values of the graph around it."""
        self._values = values
        self._outer = outer
        self._found: dict[str, Interval] = {}
        self._makers: dict[str, NodeProto] = {}

    def of(self, name: str) -> Interval:
        """The interval of a value; `ANY` where nothing is known."""
        if name not in self._found:
            self._found[name] = self._given(name)
        return self._found[name]

    def know(self, name: str, interval: Interval) -> None:
        """What is known of a value from elsewhere."""
        self._found[name] = interval

    def learn(self, node: NodeProto) -> None:
        """Find the intervals of a node's results, those of its operands being known."""
        interval = self._computed(node)
        for place, name in enumerate(node.output):
            if name:
                is_of_places = node.op_type == "TopK" and place == 1
                self._found[name] = self._places(node) if is_of_places else interval
                self._makers[name] = node

    def _given(self, name: str) -> Interval:
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

    def _computed(self, node: NodeProto) -> Interval:
        op = node.op_type
        if self._values.elem_type(node.output[0]) == TensorProto.BOOL or op in _KNOWN:
            return _KNOWN.get(op, _UNIT)
        if not node.input:
            return ANY
        given = [self.of(name) if name else ANY for name in node.input]
        if op in _PASSES:
            return given[0]
        if op in _WITH_ZERO:
            return _union([given[0], (0.0, 0.0)])
        match op:
            case "Cast" | "Floor" | "Ceil" | "Round":
                return math.floor(given[0][0]) if math.isfinite(given[0][0]) else given[0][0], _ceil(given[0][1])
            case "Concat" | "Max" | "Min" | "Where" | "ScatterND" | "ScatterElements":
                return self._merged(node, given)
            case "Clip":
                return self._clipped(node, given)
            case "ReduceSum":
                return _scaled(given[0], self.count(node))
            case "ArgMax" | "ArgMin":
                return self._places(node)
            case "NonZero":
                shape = self._values.shape(node.input[0])
                return 0.0, max((math.inf if size is None else size - 1.0 for size in shape or (None,)), default=0.0)
            case "Range":
                return _union(given[:2])
            case "Mod":
                return _remainder(given[0], given[1], is_fmod=bool(attributes_of(node).get("fmod", 0)))
            case "Sub" if self._is_below_maximum(node):
                return -math.inf, 0.0
            case "Div" if self._is_within_largest(node):
                return _SIGNED_UNIT
            case "Mul" if node.input[0] == node.input[1]:
                return _even_power(given[0], 2.0)
            case "Pow":
                return self._power(node, given[0])
            case _:
                rule = _UNARY.get(op)
                if rule is not None:
                    return rule(given[0])
                pair = _BINARY.get(op)
                return pair(given[0], given[1]) if pair is not None and len(given) == 2 else ANY

    def _merged(self, node: NodeProto, given: Sequence[Interval]) -> Interval:
        match node.op_type:
            case "Max":
                return max(low for low, _ in given), max(high for _, high in given)
            case "Min":
                return min(low for low, _ in given), min(high for _, high in given)
            case "Where":
                return _union(given[1:])
            case "Concat":
                return _union(given)
            case _:
                is_put = attributes_of(node).get("reduction", "none") in ("none", "max", "min")
                return _union([given[0], given[2]]) if is_put else ANY

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
            return _sqrt(base)
        if power < 0 < base[0]:
            return _exact_power(base[1], power), _exact_power(base[0], power)
        if power > 0 and power % 2 == 0:
            return _even_power(base, power)
        return (0.0, math.inf) if base[0] >= 0 else ANY

    def _is_below_maximum(self, node: NodeProto) -> bool:
        """Is it x - max(x)?"""
        largest = self._makers.get(node.input[1])
        return largest is not None and largest.op_type == "ReduceMax" and largest.input[0] == node.input[0]

    def _is_within_largest(self, node: NodeProto) -> bool:
        """Is it x / max(|x|), or by a limit that is larger?"""
        limited = self._makers.get(node.input[1])
        names = limited.input if limited is not None and limited.op_type == "Max" else node.input[1:]
        largest = [each for name in names if (each := self._makers.get(name)) is not None]
        sizes = [self._makers.get(each.input[0]) for each in largest if each.op_type == "ReduceMax"]
        return any(each is not None and each.op_type == "Abs" and each.input[0] == node.input[0] for each in sizes)

    def _places(self, node: NodeProto) -> Interval:
        """Of the places along an axis."""
        shape, attributes = self._values.shape(node.input[0]), attributes_of(node)
        size = shape[int(attributes.get("axis", -1 if node.op_type == "TopK" else 0))] if shape else None
        return 0.0, math.inf if size is None else max(size - 1.0, 0.0)

    def count(self, node: NodeProto) -> float:
        """How many elements a reduction takes together; infinite where that is not known."""
        shape = self._values.shape(node.input[0])
        if shape is None:
            return math.inf
        places = list(range(len(shape)))
        if len(node.input) > 1 and node.input[1]:
            axes = self._values.constant(node.input[1])
            if axes is None:
                return math.inf
            if axes.size or attributes_of(node).get("noop_with_empty_axes", 0):
                places = [int(each) % max(len(shape), 1) for each in axes.reshape(-1)]
        return math.prod(math.inf if shape[place] is None else float(shape[place] or 0) for place in places)


def magnitude(interval: Interval) -> float:
    """The largest absolute value."""
    return max(abs(interval[0]), abs(interval[1]))


def _ceil(value: float) -> float:
    return math.ceil(value) if math.isfinite(value) else value


def _product(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _union(intervals: Sequence[Interval]) -> Interval:
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def _scaled(interval: Interval, count: float) -> Interval:
    """The sum of `count` elements."""
    return _product(interval[0], count), _product(interval[1], count)


def _remainder(dividend: Interval, divisor: Interval, *, is_fmod: bool) -> Interval:
    """Of the divisor's sign, or with `is_fmod` of the dividend's and no larger than it."""
    size = magnitude(divisor)
    if is_fmod:
        size = min(size, magnitude(dividend))
        return (0.0 if dividend[0] >= 0 else -size), (0.0 if dividend[1] <= 0 else size)
    return (0.0 if divisor[0] >= 0 else -size), (0.0 if divisor[1] <= 0 else size)


def _even_power(interval: Interval, power: float) -> Interval:
    low, high = interval
    ends = [_exact_power(abs(low), power), _exact_power(abs(high), power)]
    return (0.0 if low <= 0 <= high else min(ends)), max(ends)


def _exact_power(base: float, power: float) -> float:
    try:
        return base**power
    except OverflowError:
        return math.inf


def _sqrt(interval: Interval) -> Interval:
    return math.sqrt(max(interval[0], 0.0)), math.sqrt(max(interval[1], 0.0))


def _exp(value: float) -> float:
    return math.inf if value > 700 else math.exp(value)


def _log(value: float) -> float:
    return -math.inf if value <= 0 else math.log(value)


def _absolute(interval: Interval) -> Interval:
    low, high = interval
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _add(a: Interval, b: Interval) -> Interval:
    low, high = a[0] + b[0], a[1] + b[1]
    return (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)


def _subtract(a: Interval, b: Interval) -> Interval:
    return _add(a, (-b[1], -b[0]))


def _multiply(a: Interval, b: Interval) -> Interval:
    ends = [_product(x, y) for x in a for y in b]
    return min(ends), max(ends)


def _divide(a: Interval, b: Interval) -> Interval:
    if b[0] <= 0 <= b[1]:
        # Of one sign each, though without limits.
        return (0.0, math.inf) if a[0] >= 0 and b[0] >= 0 else ANY
    return _multiply(a, (1 / b[1], 1 / b[0]))


_UNARY: Mapping[str, Callable[[Interval], Interval]] = {
    "Abs": _absolute,
    "Neg": lambda x: (-x[1], -x[0]),
    "Relu": lambda x: (max(x[0], 0.0), max(x[1], 0.0)),
    "Exp": lambda x: (_exp(x[0]), _exp(x[1])),
    "Log": lambda x: (_log(x[0]), _log(x[1])),
    "Sqrt": _sqrt,
    "Softplus": lambda x: (0.0, x[1] + 0.7 if x[1] > 0 else 0.7),
    "LeakyRelu": lambda x: (min(x[0], 0.0), max(x[1], 0.0)),
    "Elu": lambda x: (min(x[0], 0.0), max(x[1], 0.0)),
    "Gelu": lambda x: (-0.2, max(x[1], 0.0)),
    "Reciprocal": lambda x: _divide((1.0, 1.0), x),
}

_BINARY: Mapping[str, Callable[[Interval, Interval], Interval]] = {
    "Add": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
}
