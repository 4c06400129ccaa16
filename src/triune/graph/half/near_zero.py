"""Find numbers near 0 whose size matters to the nodes that read them: log(p), 1 / p, p > 0.

For a score that is 20 below the largest, a Softmax gives exp(-20) = 2e-9, which fp16 rounds to 0. It does not help to
compute only the Softmax in fp32: its result must not be rounded on the way to log(p), either. So all nodes between them
compute in fp32, too.
"""

import math
from collections.abc import Sequence

from onnx import NodeProto, TensorProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.limits import SMALLEST_INVERTED, SMALLEST_NORMAL
from triune.graph.half.operators import (
    COMPARISONS,
    DIVISIONS,
    GUARDS,
    KEEP_SMALL,
    PROBABILITIES,
    SMALL_PRODUCTS,
    ZERO_TESTS,
)
from triune.graph.half.producers import DEEPEST, Producers
from triune.graph.values import attributes_of


def small_producers(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes that compute numbers near 0 that `node` reads, and `node` itself; [] if it reads none."""
    names = _read_as_small(node, producers)
    found = [each for name in names for each in probability_producers(name, producers)]
    is_of_given = node.op_type not in DIVISIONS and any(producers.is_input(name) for name in names)
    return [*found, node] if found or is_of_given else []


def is_of_small(node: NodeProto, producers: Producers) -> bool:
    """Whether a node divides by numbers near 0, so that its results may be beyond fp16's range."""
    return bool(_small_divisors(node, producers)) and bool(small_producers(node, producers))


def guarded_producers(log: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes that compute the operand of a logarithm, found by looking back through guards such as Max(x, 1e-12)."""
    names, found = [log.input[0]], list[NodeProto]()
    for _ in range(DEEPEST):
        node = producers.of(names.pop()) if names else None
        if node is not None and node.op_type in PROBABILITIES | SMALL_PRODUCTS | KEEP_SMALL:
            found.append(node)
            names += producers.floats(node) if node.op_type in GUARDS else []
    return found


def probability_producers(name: str, producers: Producers) -> list[NodeProto]:
    """The nodes from a Softmax, Sigmoid or Exp to the value `name`; [] if it is not computed from any of these."""
    return producers.leading_to(
        name,
        lambda _, node: [node] if node.op_type in PROBABILITIES else [],
        lambda value, node: node.op_type in KEEP_SMALL | SMALL_PRODUCTS and _is_bounded(producers.bounds.of(value)),
    )


def _read_as_small(node: NodeProto, producers: Producers) -> Sequence[str]:
    """The operands of a node that fp16 may round to 0, if that would change the result: log(0), x > 0, 1 / 0."""
    if not node.input or producers.values.elem_type(node.input[0]) != TensorProto.FLOAT:
        return []
    if node.op_type == "Log" or _is_high_root(node, producers):
        return [node.input[0]] if producers.bounds.of(node.input[0])[0] < SMALLEST_NORMAL else []
    if node.op_type in COMPARISONS and node.input[0] != node.input[1]:
        limits = [name for name in node.input if producers.values.tensor(name) is not None]
        return node.input if all(magnitude(producers.bounds.of(name)) < SMALLEST_NORMAL for name in limits) else []
    is_truth = node.op_type == "Cast" and attributes_of(node).get("to") == TensorProto.BOOL
    return [node.input[0]] if is_truth or node.op_type in ZERO_TESTS else _small_divisors(node, producers)


def _is_high_root(node: NodeProto, producers: Producers) -> bool:
    """Whether a node computes a root of a higher degree than the square root, as geometric means do: the 8th root of
    1e-22 is 0.002.
    """
    exponent = producers.values.constant(node.input[1]) if node.op_type == "Pow" else None
    return exponent is not None and bool(((exponent > 0) & (exponent < 0.5)).any())


def _small_divisors(node: NodeProto, producers: Producers) -> Sequence[str]:
    """The divisors of a node that may be so small that 1 / divisor is infinite in fp16."""
    match node.op_type:
        case "Reciprocal":
            names = [node.input[0]]
        case "Div":
            names = [node.input[1]]
        case "Pow":
            exponent = producers.values.constant(node.input[1])
            names = [node.input[0]] if exponent is None or (exponent < 0).any() else []
        case _:
            names = []
    return [name for name in names if _may_be_small(producers.bounds.of(name))]


def _may_be_small(interval: tuple[float, float]) -> bool:
    return interval[0] < SMALLEST_INVERTED and interval[1] > -SMALLEST_INVERTED


def _is_bounded(interval: tuple[float, float]) -> bool:
    """Whether an interval is finite, or all its numbers have one sign. The interval of an activation such as
    x * sigmoid(x) is neither, so that the activation is not taken for a probability.
    """
    return interval[0] >= 0 or interval[1] <= 0 or magnitude(interval) < math.inf
