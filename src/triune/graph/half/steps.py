"""Find the nodes between a layer and an operator whose result jumps (a step): `floor(sigmoid(x) * 100)`, ArgMax of
probabilities.

A step's result jumps where its operand passes a whole number or another number. fp16 rounds a sigmoid above 0.99976 to
1: floor gives 100, which is not a row of a table of 100, and probabilities that differ become equal. The rounding of
the layer's own results changes a sigmoid near 1 far less.
"""

import math

from onnx import NodeProto, TensorProto

from triune.graph.half.exact import is_rounding
from triune.graph.half.intervals import magnitude
from triune.graph.half.operators import COMPARISONS, FUNCTIONS, RANKINGS, SATURATING, STEPS
from triune.graph.half.producers import Producers
from triune.graph.half.whole_numbers import ELEMENTWISE, since_layer

_SQUASHING = SATURATING | {"Softmax"}


def squashed_producers(step: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes from a Sigmoid, Tanh, Softmax or the like to a step, and the step; [] if no path leads there.

    All values in between have known bounds. `x * sigmoid(x)`, which has none, is an activation in a network, whose
    layers round anyway.

    Args:
        step: any node; the result is [] if the node is not one whose result jumps (see the module).
        producers: finds the nodes that compute its operands.
    """
    if step.op_type not in STEPS and not is_rounding(step):
        return []
    if step.op_type in COMPARISONS and not _is_near_one(step, producers):
        return []
    operands = step.input[:1] if step.op_type in RANKINGS else step.input
    found = [
        each
        for name in operands
        for each in producers.leading_to(
            name,
            lambda _, node: [node] if node.op_type in _SQUASHING else [],
            lambda value, node: (
                node.op_type in ELEMENTWISE | FUNCTIONS and magnitude(producers.bounds.of(value)) < math.inf
            ),
        )
    ]
    return [*found, step] if found else []


def _is_near_one(comparison: NodeProto, producers: Producers) -> bool:
    """Whether a comparison may be with a number above 0.5, where fp16 is coarser for a Sigmoid's result than for its
    operand.

    False for x == x, which only tests whether x is NaN.
    """
    if comparison.input[0] == comparison.input[1]:
        return False
    limits = [name for name in comparison.input if producers.values.tensor(name) is not None]
    return all(magnitude(producers.bounds.of(name)) > 0.5 for name in limits)


def fraction_producers(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes of `x - floor(x)` or `mod(x, y)` since the last layer, and that layer; [] for any other node.

    fp16 has few fractions of a large number (16 between 64 and 65), and may round x up to floor(x) + 1.
    """
    if producers.values.elem_type(node.output[0]) != TensorProto.FLOAT:
        return []
    if node.op_type == "Mod":
        return [*since_layer(node.input[0], producers), node]
    floor = producers.of(node.input[1]) if node.op_type == "Sub" else None
    found = [node]
    if floor is not None and floor.op_type == "Cast" and not is_rounding(floor):
        found.append(floor)
        floor = producers.of(floor.input[0])
    if floor is None or not is_rounding(floor) or floor.input[0] != node.input[0]:
        return []
    return [*since_layer(node.input[0], producers), floor, *found]
