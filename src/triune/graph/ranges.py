"""Find the interval in which the integers of each value lie if a graph is computed in int32.

The intervals are computed by interval arithmetic (R. E. Moore, Interval Analysis, 1966), beginning with constants,
sizes and small element types. Inputs are within int32: a program that is called with other inputs refuses them.
"""

import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from onnx import NodeProto, TensorProto, helper

from triune.graph.values import Values, attributes_of, subgraphs_of

_INT32 = np.iinfo(np.int32)
WIDE = (TensorProto.INT64, TensorProto.UINT64, TensorProto.UINT32)
"""The integer types with numbers that do not fit into int32."""

WHOLE = (*WIDE, TensorProto.INT32, TensorProto.INT16, TensorProto.INT8, TensorProto.UINT16, TensorProto.UINT8)

_MOST_ELEMENTS = 1 << 20
"""The interval of a constant with more elements is that of its type, since reading it takes time."""

_MOST_BITS = 70
"""`_power` replaces larger exponents by this one. The results are beyond INT64 in any case, where their size does not
matter, and are computed with smaller numbers.
"""


@dataclass(frozen=True, slots=True)
class Interval:
    """The lowest and the highest number that an element of a value may be.

    Attributes:
        low: the lowest number.
        high: the highest number.
        is_size: whether the value is computed from sizes and constants alone, which do not overflow in practice.
    """

    low: int
    high: int
    is_size: bool = False

    @property
    def largest(self) -> int:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))


_Ends: TypeAlias = tuple[int, int]

ANY = Interval(_INT32.min, _INT32.max)
"""The interval of all int32 numbers."""

_SIZE = Interval(0, _INT32.max, is_size=True)


def of_constant(values: Values, name: str) -> Interval | None:
    """The interval of a constant; None for any other value."""
    tensor = values.tensor(name)
    if tensor is None:
        return None
    if tensor.data_type not in WHOLE or not 0 < math.prod(tensor.dims) <= _MOST_ELEMENTS:
        return replace(of_type(tensor.data_type), is_size=True)
    array = values.constant(name)
    return None if array is None else Interval(int(array.min()), int(array.max()), is_size=True)


def of_type(elem_type: int) -> Interval:
    """The interval of all numbers of a type, in a graph after `Narrow`."""
    if elem_type == TensorProto.BOOL:
        return Interval(0, 1)
    if elem_type not in WHOLE:
        return ANY
    limits = np.iinfo(helper.tensor_dtype_to_np_dtype(elem_type))
    return Interval(max(int(limits.min), ANY.low), min(int(limits.max), ANY.high))


def results_of(node: NodeProto, values: Values, given: Sequence[Interval]) -> list[Interval]:
    """Compute the intervals of a node's outputs from those of its inputs (`given`, without omitted inputs).

    The intervals are of unbounded integers, though a program wraps around beyond int32. If nothing is known of an
    output, its interval is the range of its type.
    """
    types = [values.elem_type(name) for name in node.output]
    is_size = all(each.is_size for each in given) and not any(True for _ in subgraphs_of(node))
    if node.op_type in ("Size", "NonZero", "ArgMax", "ArgMin", "NonMaxSuppression"):
        return [_SIZE]
    if node.op_type == "Shape":
        sizes = values.shape(node.input[0]) or (None,)
        known = [size for size in sizes if size is not None]
        is_known = bool(known) and len(known) == len(sizes)
        return [Interval(min(known), max(known), is_size=True) if is_known else _SIZE]
    ends = None
    if types and types[0] in WHOLE and node.domain in ("", "ai.onnx"):
        is_passed = node.op_type in _COPIED_OPERANDS
        ends = _union(given[_COPIED_OPERANDS[node.op_type]]) if is_passed else _computed(node, values, given)
    results = [replace(of_type(elem_type), is_size=is_size) for elem_type in types]
    if ends is not None:
        results = [Interval(*ends, is_size) for _ in results]
    return [results[0], *(_SIZE for _ in results[1:])] if node.op_type in ("TopK", "MaxPool") else results


_COPIED_OPERANDS: Mapping[str, slice] = {
    **dict.fromkeys(["Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Tile", "Slice"], slice(1)),
    **dict.fromkeys(["Gather", "GatherElements", "GatherND", "Split", "ReverseSequence", "TopK"], slice(1)),
    **dict.fromkeys(["DepthToSpace", "SpaceToDepth", "ReduceMax", "ReduceMin", "MaxPool"], slice(1)),
    "Concat": slice(None),
    "Where": slice(1, None),
}
"""Operators that only copy elements, with the slice of their operands that the elements come from."""


def _union(given: Sequence[Interval]) -> _Ends:
    return min(each.low for each in given), max(each.high for each in given)


def _from_ends(operation: Callable[[int, int], int], a: Interval, b: Interval) -> _Ends:
    """The interval of the results of an operation whose lowest and highest results occur at the ends of both
    intervals.
    """
    ends = [operation(x, y) for x, y in itertools.product((a.low, a.high), (b.low, b.high))]
    return min(ends), max(ends)


def _computed(node: NodeProto, values: Values, given: Sequence[Interval]) -> _Ends | None:
    """The interval of a node's results; None if nothing is known."""
    first = given[0] if given else ANY
    match node.op_type:
        case "Add":
            return first.low + given[1].low, first.high + given[1].high
        case "Sub":
            return first.low - given[1].high, first.high - given[1].low
        case "Mul":
            return _from_ends(operator.mul, *given)
        case "Div":
            return _quotient(*given)
        case "Mod":
            return _remainder(given[1], is_fmod=bool(attributes_of(node).get("fmod", 0)))
        case "Neg":
            return -first.high, -first.low
        case "Abs":
            return 0 if first.low <= 0 <= first.high else min(abs(first.low), abs(first.high)), first.largest
        case "Sign":
            return int(np.sign(first.low)), int(np.sign(first.high))
        case "Max":
            return max(each.low for each in given), max(each.high for each in given)
        case "Min":
            return min(each.low for each in given), min(each.high for each in given)
        case "Clip":
            return _clipped(node, given)
        case "Pow":
            return _power(*given)
        case "Cast":
            return _cast(node, values, first)
        case "ReduceSum" | "CumSum" | "ReduceProd" | "MatMul":
            return _of_reduction(node, values, given)
        case "ScatterElements" | "ScatterND":
            return _scattered(node, values, given)
        case _:
            return None


def _quotient(a: Interval, b: Interval) -> _Ends:
    """The interval of a quotient of integers, rounded towards zero.

    If the divisor's interval includes 0, its other numbers are at least 1 in absolute value, so no quotient is larger
    in absolute value than the dividend.
    """
    if b.low <= 0 <= b.high:
        return -a.largest, a.largest
    return _from_ends(lambda x, y: abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1), a, b)


def _remainder(divisor: Interval, *, is_fmod: bool) -> _Ends:
    most = max(divisor.largest - 1, 0)
    return 0 if divisor.low > 0 and not is_fmod else -most, most


def _clipped(node: NodeProto, given: Sequence[Interval]) -> _Ends:
    low, high, rest = given[0].low, given[0].high, iter(given[1:])
    if len(node.input) > 1 and node.input[1]:
        bound = next(rest)
        low, high = max(low, bound.low), max(high, bound.high)
    if len(node.input) > 2 and node.input[2]:
        bound = next(rest)
        low, high = min(low, bound.low), min(high, bound.high)
    return low, high


def _power(base: Interval, exponent: Interval) -> _Ends:
    low, high = (min(max(each, 0), _MOST_BITS) for each in (exponent.low, exponent.high))
    largest = min(base.largest, 1 << _MOST_BITS) ** high
    return (max(base.low, 0) ** low if base.low >= 0 else -largest), max(largest, 1)


def _cast(node: NodeProto, values: Values, given: Interval) -> _Ends | None:
    """The interval of a Cast's result; None for a Cast of floats, or if an integer may not fit into the type."""
    target, source = of_type(attributes_of(node)["to"]), values.elem_type(node.input[0])
    if source not in (*WHOLE, TensorProto.BOOL) or given.low < target.low or given.high > target.high:
        return None
    return given.low, given.high


def _of_reduction(node: NodeProto, values: Values, given: Sequence[Interval]) -> _Ends:
    """The interval of a sum or product of many elements. An axis whose size is not known counts as 2^31 - 1
    elements.
    """
    count = _count(node, values)
    if node.op_type == "ReduceProd":
        return _power(given[0], Interval(0, count))
    low, high = _from_ends(operator.mul, *given) if node.op_type == "MatMul" else (given[0].low, given[0].high)
    fewest = count if node.op_type != "CumSum" and count < _INT32.max else 1
    return min(low * count, low * fewest), max(high * count, high * fewest)


def _scattered(node: NodeProto, values: Values, given: Sequence[Interval]) -> _Ends:
    """The interval of a tensor after ScatterElements or ScatterND. If they add or multiply, all updates may go to the
    same element.
    """
    data, updates = given[0], given[2]
    shape = values.shape(node.input[1]) or (None,)
    sizes = shape[:-1] if node.op_type == "ScatterND" else shape
    count = math.prod(_INT32.max if size is None else size for size in sizes)
    match attributes_of(node).get("reduction", "none"):
        case "add":
            return data.low + min(updates.low * count, 0), data.high + max(updates.high * count, 0)
        case "mul":
            return _from_ends(operator.mul, data, Interval(*_power(updates, Interval(0, count))))
        case _:
            return _union([data, updates])


def _count(node: NodeProto, values: Values) -> int:
    shape = values.shape(node.input[0])
    if shape is None:
        return _INT32.max
    positions = [-1]
    if node.op_type != "MatMul":
        axes = values.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        positions = range(len(shape)) if axes is None else [int(each) for each in axes.reshape(-1)]
    sizes = [shape[position] for position in positions]
    return math.prod(_INT32.max if size is None else size for size in sizes)
