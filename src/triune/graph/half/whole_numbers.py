"""Find the nodes that compute integers beyond 2048 (buckets, indices, counts), not all of which fp16 can represent."""

import math

from onnx import NodeProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.operators import DENSE_PRODUCTS, EXACT_ARITHMETIC, PROBABILITIES, RECTIFIERS, SATURATING
from triune.graph.half.producers import DEEPEST, Producers

_EXACT = 2048.0
"""fp16 represents every integer up to 2048; of the larger ones it skips some (2049)."""

ELEMENTWISE = EXACT_ARITHMETIC - DENSE_PRODUCTS | PROBABILITIES | RECTIFIERS | SATURATING | {"Log"}
"""Operators that may stand between a layer and a rounding to whole numbers."""


def whole_number_producers(rounding: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes that must stay fp32 because a node rounds to whole numbers that may be beyond 2048; [] if it does not.

    They are the node, the last layer before it, and the elementwise nodes between the two. An error of fp16 (1/2048 of
    a number) in any of them would be one whole number or more.

    Args:
        rounding: a Floor, Ceil or Round, or a Cast to an integer type.
        producers: finds the nodes that compute its operand.
    """
    name = rounding.input[0]
    if not _EXACT < magnitude(producers.bounds.of(name)) < math.inf:
        return []
    return [*since_layer(name, producers), rounding]


def since_layer(name: str, producers: Producers) -> list[NodeProto]:
    """The last layer before a value, and the elementwise nodes that compute the value from its result."""
    found: dict[str, NodeProto] = {}
    _collect(name, producers, found, 0)
    return [*found.values()]


def _collect(name: str, producers: Producers, found: dict[str, NodeProto], depth: int) -> None:
    node = producers.of(name)
    if node is None or name in found or depth > DEEPEST or node.op_type not in ELEMENTWISE | DENSE_PRODUCTS:
        return
    found[name] = node
    if node.op_type not in DENSE_PRODUCTS:
        for operand in producers.floats(node):
            _collect(operand, producers, found, depth + 1)
