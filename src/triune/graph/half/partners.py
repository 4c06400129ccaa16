"""Find the nodes before a node in fp32 that must compute in fp32 as well, so that its operands are precise."""

from collections.abc import Iterator

from onnx import NodeProto, TensorProto

from triune.graph.half.operators import COORDINATE_ARITHMETIC, MEANS, RESHAPES, SCALES, SCORE_ARITHMETIC, SQUARE_SUMS
from triune.graph.half.producers import DEEPEST, Producers


def _producing_nodes(names: list[str], producers: Producers) -> Iterator[NodeProto]:
    """Yield the nodes that compute the values `names`, beginning with the last, for at most DEEPEST names. The caller
    may append names meanwhile.
    """
    for _ in range(DEEPEST):
        if not names:
            return
        node = producers.of(names.pop())
        if node is not None:
            yield node


def score_producers(softmax: NodeProto, producers: Producers) -> Iterator[NodeProto]:
    """Yield the nodes that scale, mask and add the scores of a Softmax: fp16 rounds sums near -10000 to multiples of
    8.
    """
    names = [softmax.input[0]]
    for node in _producing_nodes(names, producers):
        if node.op_type in SCORE_ARITHMETIC:
            yield node
            names += [name for name in node.input if producers.values.elem_type(name) == TensorProto.FLOAT]


def coordinate_producers(coordinates: str, producers: Producers) -> list[NodeProto]:
    """The nodes that add, scale and concatenate coordinates in an image. The search ends at offsets that layers
    compute.
    """
    names = [coordinates]
    found: list[NodeProto] = []
    for node in _producing_nodes(names, producers):
        if node.op_type in COORDINATE_ARITHMETIC:
            found.append(node)
            names += [name for name in node.input if producers.values.elem_type(name) == TensorProto.FLOAT]
    return found


def variance_producers(difference: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes of mean(x^2) - mean(x)^2, which may be far smaller than its operands; [] for any other node."""
    if difference.op_type != "Sub":
        return []
    squares, square = (_scales_and_producer(name, producers) for name in difference.input)
    if not squares or not square or squares[-1].op_type not in MEANS or not is_square(square[-1], producers):
        return []
    mean = _scales_and_producer(square[-1].input[0], producers)
    of = producers.of(squares[-1].input[0])
    if not mean or mean[-1].op_type not in MEANS or of is None or not is_square(of, producers):
        return []
    return [*squares, of, *square, *mean, difference]


def _scales_and_producer(name: str, producers: Producers) -> list[NodeProto]:
    """The nodes that scale and reshape a value by constants, then the first node before them that does something else;
    [] if there is none.
    """
    found: list[NodeProto] = []
    for _ in range(DEEPEST):
        node = producers.of(name)
        if node is None:
            return []
        found.append(node)
        is_scale = node.op_type in ("Mul", "Div") and producers.values.constant(node.input[1]) is not None
        if not is_scale and node.op_type not in RESHAPES:
            return found
        name = node.input[0]
    return []


def is_square(node: NodeProto, producers: Producers) -> bool:
    """Whether a node computes the square of its first operand."""
    if node.op_type == "Pow":
        power = producers.values.constant(node.input[1])
        return power is not None and power.size == 1 and power.reshape(-1)[0] == 2
    return node.op_type == "Mul" and node.input[0] == node.input[1]


def square_partners(total: NodeProto, producers: Producers) -> Iterator[NodeProto]:
    """Yield the nodes that compute the other terms of a sum with squares: in |x|^2 - 2 x y + |y|^2, 2 x y is as large
    as the squares.
    """
    names = list(total.input)
    for node in _producing_nodes(names, producers):
        if node.op_type in SCALES:
            yield node
            names += list(node.input)
        elif node.op_type in SQUARE_SUMS:
            yield node
