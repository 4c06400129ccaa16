"""Read a chain of products as one constant factor and the other values, and replace known patterns by one operator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from onnx import NodeProto, TensorProto

from triune.graph.editing import Edit, node_of

_MOST_FACTORS = 4
"""A product of more values than this counts as one value, without factors: no pattern has more."""


@dataclass(frozen=True, slots=True)
class Factors:
    """A product of a constant and values: number * value * value ....

    Attributes:
        number: the product of the constants.
        values: the names of the values, in order.
    """

    number: float
    values: tuple[str, ...]


def factors_of(edit: Edit, node: NodeProto) -> Factors:
    """The factors of a Mul or Div and of the chain of products before it: each Mul, or Div by a constant, whose result
    only the next node of the chain reads.
    """
    number, values = 1.0, list[str]()
    for position, name in enumerate(node.input):
        scalar = edit.scalar(name)
        if scalar is not None and (node.op_type == "Mul" or scalar):
            number *= scalar if node.op_type == "Mul" or position == 0 else 1 / scalar
            continue
        before = edit.producer(name, "Mul", "Div")
        is_inner = before is not None and edit.only_reader(name) is node
        if node.op_type == "Div" and position:
            # A quotient by a value that is not constant counts as one factor, whatever its operands are.
            return Factors(1.0, (node.output[0],))
        if before is None or not is_inner or (before.op_type == "Div" and edit.scalar(before.input[1]) is None):
            values.append(name)
            continue
        inner = factors_of(edit, before)
        number *= inner.number
        values += inner.values
    return Factors(number, tuple(values)) if len(values) <= _MOST_FACTORS else Factors(1.0, (node.output[0],))


def scaled(edit: Edit, name: str) -> tuple[float, str]:
    """Read a value as number * other value; as 1 * itself if no constant multiplies it."""
    node = edit.producer(name, "Mul", "Div")
    if node is not None:
        found = factors_of(edit, node)
        if len(found.values) == 1:
            return found.number, found.values[0]
    return 1.0, name


def is_near(number: float | None, wanted: float) -> bool:
    """Whether a constant equals a number up to the few digits with which exporters write it."""
    return number is not None and abs(number - wanted) <= 2e-6 * abs(wanted)


Form: TypeAlias = Callable[[Edit, str, str, float], tuple[str, Mapping[str, str]] | None]
"""Given x, a gate and a factor, returns the operator that computes x * gate * factor from x, and its attributes; None
if there is none.
"""


def replace_gates(edit: Edit, form: Form) -> None:
    """Replace each fp32 product of a constant factor and two values by the operator that `form` returns, if any. Each
    of the two values is tried as x, with the other one as its gate.
    """
    for node in edit.each("Mul", "Div"):
        if edit.values.elem_type(node.output[0]) != TensorProto.FLOAT:
            continue
        found = factors_of(edit, node)
        if len(found.values) != 2:
            continue
        for x, gate in (found.values, found.values[::-1]):
            known = form(edit, x, gate, found.number)
            if known is not None:
                op_type, attributes = known
                edit.replace(node, [node_of(op_type, [x], [node.output[0]], **attributes)])
                break
