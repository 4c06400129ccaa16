"""Find nodes whose integer results may not fit into int32, the widest integer type of Apple's runtimes."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from onnx import GraphProto, NodeProto, TensorProto

from triune.core.errors import UnsupportedError
from triune.graph.half.bounds import Bounds
from triune.graph.ranges import ANY, WHOLE, WIDE, Interval, of_constant, of_type, results_of
from triune.graph.values import Values, attributes_of, names_read_by, subgraphs_of

_NOTED = (1 << 31) + (1 << 20)
"""Only results that may be larger than this are reported: an input plus a small constant rarely overflows."""

_FAR = 1 << 34
"""A Cast of floats to integers is reported only if the floats may be larger than this."""

_UNSIGNED = (TensorProto.UINT32, TensorProto.UINT64)

_ADDRESSES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(["Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"], (1,)),
    **dict.fromkeys(["Reshape", "Expand", "Tile", "Squeeze", "Unsqueeze", "Split", "TopK"], (1,)),
    "ConstantOfShape": (0,),
    "Resize": (3,),
}
"""The positions of operands that are indices or sizes, which always fit into int32."""

_VIEWS = frozenset(["Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Concat"])

_WRAPPING = _VIEWS | {"Add", "Sub", "Mul", "Where"}
"""Operators through which wrapping does no harm: if intermediate numbers wrap around, a final number within int32 is
still right.
"""


@dataclass(frozen=True, slots=True)
class Overflow:
    """A node whose results are not known to fit into int32.

    Attributes:
        node: the operator and the name: `Op 'name'`.
        elem_type: the element type of the results in the model.
        is_cast: whether the node casts floats to integers. Then results beyond int32 are undefined; other results wrap
            around.
        is_trap: whether results beyond int32 end the process of Core AI's interpreter.
    """

    node: str
    elem_type: int
    is_cast: bool
    is_trap: bool = False


def find_overflows(graph: GraphProto) -> list[Overflow]:
    """Find the nodes with results of INT64, UINT64 or UINT32 that are not known to fit into int32, and the sums of
    INT32 at which Core AI's interpreter would end its process.

    Args:
        graph: a graph of core operators with inferred shapes, before `Narrow`, and whose constants are initializers.

    Returns:
        the nodes, in order. Reported are results that may be beyond int32 by more than a million and are not only
        used as indices or sizes, and unsigned ones that would be negative in int32.

    Raises:
        UnsupportedError: all possible results of a node are beyond int32.
    """
    found: list[Overflow] = []
    _follow(graph, None, None, {}, found)
    return list(dict.fromkeys(found))


def _follow(
    graph: GraphProto,
    outer: Values | None,
    around: Bounds | None,
    known: Mapping[str, Interval],
    found: list[Overflow],
) -> None:
    values = Values(graph, outer)
    bounds = Bounds(values, around)
    intervals = dict(known)

    def of(name: str) -> Interval:
        if name not in intervals:
            intervals[name] = of_constant(values, name) or of_type(values.elem_type(name))
            if values.elem_type(name) in WHOLE:
                bounds.know(name, (intervals[name].low, intervals[name].high))
        return intervals[name]

    for node in graph.node:
        for inner in subgraphs_of(node):
            _follow(inner, values, bounds, intervals, found)
        given = [of(name) for name in node.input if name]
        bounds.learn(node)
        for name, result in zip(node.output, results_of(node, values, given), strict=False):
            elem_type = values.elem_type(name)
            called = f"{node.op_type} '{node.name or node.output[0]}'"
            is_cast = _is_cast_of_floats(node, values)
            if is_cast and elem_type in WHOLE:
                result = _within(result, bounds.of(node.input[0]))
            is_trap = elem_type in WHOLE and _is_trap(node)
            if elem_type not in WIDE and not is_trap:
                pass
            elif is_cast:
                if not result.is_size and _is_far_beyond(bounds, node) and not _is_address(graph, name):
                    found.append(Overflow(called, elem_type, is_cast=True))
            elif _leaves(node, called, elem_type, result, given) and not _is_address(graph, name, _WRAPPING):
                found.append(Overflow(called, elem_type, is_cast=False, is_trap=is_trap))
            # A result beyond int32 wraps around, so it may be any int32.
            is_within = ANY.low <= result.low and result.high <= ANY.high
            intervals[name] = result if is_within else replace(ANY, is_size=result.is_size)
            if elem_type in WHOLE:
                bounds.know(name, (intervals[name].low, intervals[name].high))


def _leaves(node: NodeProto, called: str, elem_type: int, result: Interval, given: Sequence[Interval]) -> bool:
    """Whether a result may be beyond int32 by more than a million, or is unsigned and may be negative in int32.

    Raises:
        UnsupportedError: it is certainly beyond int32.
    """
    if result.low > ANY.high or result.high < ANY.low:
        numbers = f"{result.low}" if result.low == result.high else f"from {result.low} to {result.high}"
        raise UnsupportedError(
            f"{called} gives integers beyond int32, the widest type of Apple's runtimes: {numbers}; compute them as "
            "floats, or use smaller numbers"
        )
    if result.is_size:
        return False
    if elem_type in _UNSIGNED and _is_high(node, result, given):
        return True
    if ANY.low <= result.low and result.high <= ANY.high:
        return False
    return result.largest >= _NOTED


def _is_trap(node: NodeProto) -> bool:
    """Whether Core AI's interpreter (1.0.0b3) ends its process with SIGILL if the node's integers exceed int32. Those
    of Add, Sub, Mul and ReduceSum only wrap around.
    """
    return node.op_type in ("CumSum", "MatMul") or attributes_of(node).get("reduction") in ("add", "mul")


def _is_high(node: NodeProto, result: Interval, given: Sequence[Interval]) -> bool:
    """Whether an unsigned result may be negative in int32.

    In the model such a result wraps around to a number near the largest of its type.
    """
    if node.op_type == "Cast":
        return given[0].low < 0
    return result.high > ANY.high or (result.low < 0 and node.op_type in ("Sub", "Neg"))


def _is_cast_of_floats(node: NodeProto, values: Values) -> bool:
    return node.op_type == "Cast" and values.elem_type(node.input[0]) not in (*WHOLE, TensorProto.BOOL)


def _within(result: Interval, ends: tuple[float, float]) -> Interval:
    """The interval of the integers to which floats are cast, limited to `ends`."""
    low, high = (max(-_FAR, min(end, _FAR)) for end in ends)
    if not low <= high:
        return result
    return replace(result, low=max(result.low, math.floor(low)), high=min(result.high, math.ceil(high)))


def _is_far_beyond(bounds: Bounds, node: NodeProto) -> bool:
    return max(abs(end) for end in bounds.of(node.input[0])) >= _FAR


def _is_address(graph: GraphProto, name: str, views: Collection[str] = _VIEWS) -> bool:
    """Whether all nodes that read a value use it as indices or sizes, perhaps after operators of `views`, which pass
    its elements on.
    """
    if any(value.name == name for value in graph.output):
        return False
    for node in graph.node:
        if name not in names_read_by(node):
            continue
        positions = {position for position, read in enumerate(node.input) if read == name}
        is_passed = node.op_type in views and _is_address(graph, node.output[0], views)
        if not is_passed and not (positions and positions.issubset(_ADDRESSES.get(node.op_type, ()))):
            return False
    return True
