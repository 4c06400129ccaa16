"""Read a chain of products as one constant and the values that are multiplied."""

from dataclasses import dataclass

from onnx import NodeProto

from triune.graph.editing import Edit

_MOST_FACTORS = 4
"""No pattern has more factors."""


@dataclass(frozen=True, slots=True)
class Factors:
    """number * value * value ...

    Attributes:
        number: the product of the constants.
        values: the names of the values, in order.
    """

    number: float
    values: tuple[str, ...]


def factors_of(edit: Edit, node: NodeProto) -> Factors:
    """The factors of a Mul or Div: those of each Mul, or Div by a constant, that only the next product reads."""
    number, values = 1.0, list[str]()
    for position, name in enumerate(node.input):
        scalar = edit.scalar(name)
        if scalar is not None and (node.op_type == "Mul" or scalar):
            number *= scalar if node.op_type == "Mul" or position == 0 else 1 / scalar
            continue
        before = edit.producer(name, "Mul", "Div")
        is_inner = before is not None and edit.only_reader(name) is node
        if node.op_type == "Div" and position:
            # A quotient by a value is no product.
            return Factors(1.0, (node.output[0],))
        if before is None or not is_inner or (before.op_type == "Div" and edit.scalar(before.input[1]) is None):
            values.append(name)
            continue
        inner = factors_of(edit, before)
        number *= inner.number
        values += inner.values
    return Factors(number, tuple(values)) if len(values) <= _MOST_FACTORS else Factors(1.0, (node.output[0],))


def scaled(edit: Edit, name: str) -> tuple[float, str]:
    """A value as number * other value; as 1 * itself if no constant multiplies it."""
    node = edit.producer(name, "Mul", "Div")
    if node is not None:
        found = factors_of(edit, node)
        if len(found.values) == 1:
            return found.number, found.values[0]
    return 1.0, name


def is_near(number: float | None, wanted: float) -> bool:
    """Whether a constant is a number that was written with the digits of fp32, or of a paper."""
    return number is not None and abs(number - wanted) <= 2e-6 * abs(wanted)
