"""Find nodes that Apple's runtimes compute less or more exactly than the model's types do: those of DOUBLE and
BFLOAT16, which become fp32.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from onnx import GraphProto, NodeProto, TensorProto

from triune.graph.ranges import WHOLE
from triune.graph.values import Values, attributes_of, subgraphs_of

_MOVES = frozenset(
    [
        *("Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Split", "Slice", "Expand", "Tile"),
        *("Pad", "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Where", "Trilu", "Shape"),
        *("ReverseSequence", "DepthToSpace", "SpaceToDepth", "ConstantOfShape", "If", "Loop", "Cast"),
    ]
)
"""Operators that only copy or cast floats."""

_ROUNDS = frozenset(["Floor", "Ceil", "Round"])


@dataclass(frozen=True, slots=True)
class FewerBits:
    """Nodes that are less or more exact in fp32 than in the model, each as `Op 'name'`, in order.

    Attributes:
        doubles: nodes that compute in DOUBLE.
        rounded: nodes that round values of DOUBLE to integers; values that only copy constants do not count.
        powers: nodes that raise integers to a power of floats.
        more: nodes that give BFLOAT16, which are more exact in fp32: nothing is rounded to 8 bits.
    """

    doubles: list[str] = field(default_factory=list[str])
    rounded: list[str] = field(default_factory=list[str])
    powers: list[str] = field(default_factory=list[str])
    more: list[str] = field(default_factory=list[str])


def find_fewer_bits(graph: GraphProto) -> FewerBits:
    """Find the nodes that are less or more exact in fp32 than in the model. `graph` is in core ops, and still has
    DOUBLE and BFLOAT16.
    """
    found = FewerBits()
    _follow(graph, None, (), found)
    return found


def _follow(graph: GraphProto, outer: Values | None, around: Collection[str], found: FewerBits) -> None:
    """Add the nodes of a graph and its subgraphs to `found`.

    `around` has the names of values of DOUBLE in outer graphs that are inputs or computed.
    """
    values = Values(graph, outer)
    inexact = {*around, *(value.name for value in graph.input if _is_double(values, value.name))}
    for node in graph.node:
        for inner in subgraphs_of(node):
            _follow(inner, values, inexact, found)
        called = f"{node.op_type} '{node.name or node.output[0]}'"
        if any(values.elem_type(name) == TensorProto.BFLOAT16 for name in node.output):
            found.more.append(called)
        if _rounds_to_integer(node, values):
            if node.input[0] in inexact:
                found.rounded.append(called)
            continue
        doubles = [name for name in node.output if _is_double(values, name)]
        is_computed = node.op_type not in _MOVES
        if is_computed and (doubles or any(_is_double(values, name) for name in node.input)):
            found.doubles.append(called)
        if is_computed or inexact.intersection(node.input) or any(True for _ in subgraphs_of(node)):
            inexact.update(doubles)
        if node.op_type == "Pow" and values.elem_type(node.input[0]) in WHOLE and _is_float(values, node.input[1]):
            found.powers.append(called)


def _rounds_to_integer(node: NodeProto, values: Values) -> bool:
    if not node.input or not _is_double(values, node.input[0]):
        return False
    return node.op_type in _ROUNDS or (node.op_type == "Cast" and attributes_of(node)["to"] in WHOLE)


def _is_double(values: Values, name: str) -> bool:
    return values.elem_type(name) == TensorProto.DOUBLE


def _is_float(values: Values, name: str) -> bool:
    return values.elem_type(name) in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
