"""What makes the operands of a node that computes in fp32, where they are to be in fp32 as well."""

from collections.abc import Iterator

from onnx import NodeProto, TensorProto

from triune.graph.half.makers import DEEPEST, Makers
from triune.graph.half.operators import COORDINATE_ARITHMETIC, MEANS, RESHAPES, SCALES, SCORE_ARITHMETIC, SQUARE_SUMS


def _made(names: list[str], makers: Makers) -> Iterator[NodeProto]:
    """What makes the values of these names, the last one first. The caller may add names while it reads."""
    for _ in range(DEEPEST):
        if not names:
            return
        node = makers.of(names.pop())
        if node is not None:
            yield node


def score_makers(softmax: NodeProto, makers: Makers) -> Iterator[NodeProto]:
    """What sums, masks and scales the scores of a Softmax: a sum with a mask of -10000 is rounded to 8."""
    names = [softmax.input[0]]
    for node in _made(names, makers):
        if node.op_type in SCORE_ARITHMETIC:
            yield node
            names += [name for name in node.input if makers.values.elem_type(name) == TensorProto.FLOAT]


def place_makers(places: str, makers: Makers) -> list[NodeProto]:
    """What adds up, scales and joins places in an image: offsets that layers make, and the places that they move."""
    names = [places]
    found: list[NodeProto] = []
    for node in _made(names, makers):
        if node.op_type in COORDINATE_ARITHMETIC:
            found.append(node)
            names += [name for name in node.input if makers.values.elem_type(name) == TensorProto.FLOAT]
    return found


def variance_makers(difference: NodeProto, makers: Makers) -> list[NodeProto]:
    """What makes a mean of squares less the square of a mean, with that difference: it is far smaller than both."""
    if difference.op_type != "Sub":
        return []
    squares, square = (_unscaled(name, makers) for name in difference.input)
    if not squares or not square or squares[-1].op_type not in MEANS or not _is_square(square[-1], makers):
        return []
    mean = _unscaled(square[-1].input[0], makers)
    of = makers.of(squares[-1].input[0])
    if not mean or mean[-1].op_type not in MEANS or of is None or not _is_square(of, makers):
        return []
    return [*squares, of, *square, *mean, difference]


def _unscaled(name: str, makers: Makers) -> list[NodeProto]:
    """The nodes that scale and reshape a value, and the one that makes it before; none where it is given."""
    found: list[NodeProto] = []
    for _ in range(DEEPEST):
        node = makers.of(name)
        if node is None:
            return []
        found.append(node)
        is_scale = node.op_type in ("Mul", "Div") and makers.values.constant(node.input[1]) is not None
        if not is_scale and node.op_type not in RESHAPES:
            return found
        name = node.input[0]
    return []


def _is_square(node: NodeProto, makers: Makers) -> bool:
    if node.op_type == "Pow":
        power = makers.values.constant(node.input[1])
        return power is not None and power.size == 1 and power.reshape(-1)[0] == 2
    return node.op_type == "Mul" and node.input[0] == node.input[1]


def square_partners(total: NodeProto, makers: Makers) -> Iterator[NodeProto]:
    """What makes the operands of a sum of squares: products such as -2 * x * y in |x - y|^2 are as large."""
    names = list(total.input)
    for node in _made(names, makers):
        if node.op_type in SCALES:
            yield node
            names += list(node.input)
        elif node.op_type in SQUARE_SUMS:
            yield node
