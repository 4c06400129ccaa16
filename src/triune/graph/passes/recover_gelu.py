"""Replace the nodes that exporters write for Gelu by the operator Gelu.

Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016): x * (1 + erf(x / sqrt(2))) / 2, and the approximation
x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2.
"""

import math
from collections.abc import Mapping

from onnx import ModelProto, NodeProto

from triune.graph.editing import Edit, edit_graphs, opset_of
from triune.graph.passes.factors import factors_of, is_near, replace_gates, scaled
from triune.graph.passes.run import GraphPass

FIRST_OPSET = 20
"""The first operator set with Gelu."""

_CUBIC = 0.044715


class RecoverGelu(GraphPass):
    """Given x * (1 + erf(x / sqrt(2))) / 2 in fp32, or its approximation by tanh. Result: Gelu."""

    name = "recover_gelu"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Write Gelu in place of the pattern in `model`, if its operator set has Gelu.

        `model` is changed. `Tidy` removes what nothing reads any more.
        """
        if opset_of(model) >= FIRST_OPSET:
            edit_graphs(model, lambda edit: replace_gates(edit, _gelu))
        return model


def _gelu(edit: Edit, x: str, gate: str, number: float) -> tuple[str, Mapping[str, str]] | None:
    kind = _kind_of(edit, x, gate) if is_near(number, 0.5) else None
    return None if kind is None else ("Gelu", {"approximate": kind} if kind else {})


def _kind_of(edit: Edit, x: str, gate: str) -> str | None:
    """Which form of Gelu multiplies x by the value `gate`: "" for 1 + erf(x / sqrt(2)), "tanh" for the approximation,
    else None.
    """
    add = edit.producer(gate, "Add")
    if add is None:
        return None
    for one, name in (add.input, list(add.input)[::-1]):
        inner = edit.producer(name, "Erf", "Tanh")
        if inner is None or edit.scalar(one) != 1:
            continue
        if inner.op_type == "Erf":
            number, value = scaled(edit, inner.input[0])
            return "" if value == x and is_near(number, math.sqrt(0.5)) else None
        return "tanh" if _is_cubic(edit, inner, x) else None
    return None


def _is_cubic(edit: Edit, tanh: NodeProto, x: str) -> bool:
    """Whether a Tanh reads sqrt(2 / pi) * (x + 0.044715 * x^3), or sqrt(2 / pi) * x * (1 + 0.044715 * x^2)."""
    product = edit.producer(tanh.input[0], "Mul", "Div")
    if product is None:
        return False
    found = factors_of(edit, product)
    if not is_near(found.number, math.sqrt(2 / math.pi)):
        return False
    if len(found.values) == 1:
        return _is_sum(edit, found.values[0], x, x, 3)
    if len(found.values) == 2 and x in found.values:
        other = found.values[1 - found.values.index(x)]
        return _is_sum(edit, other, None, x, 2)
    return False


def _is_sum(edit: Edit, name: str, first: str | None, x: str, exponent: int) -> bool:
    """Whether a value is first + 0.044715 * x^exponent; `first` None means 1."""
    add = edit.producer(name, "Add")
    for one, power in (add.input, list(add.input)[::-1]) if add is not None else ():
        if (edit.scalar(one) != 1) if first is None else (one != first):
            continue
        node = edit.producer(power, "Mul", "Div")
        if node is None:
            continue
        found = factors_of(edit, node)
        degrees = [_degree(edit, value, x) for value in found.values]
        if is_near(found.number, _CUBIC) and None not in degrees:
            return sum(degree or 0 for degree in degrees) == exponent
    return False


def _degree(edit: Edit, name: str, x: str) -> int | None:
    """The number n for which a value is x^n; None if it is another value."""
    if name == x:
        return 1
    node = edit.producer(name, "Pow", "Mul")
    if node is None:
        return None
    if node.op_type == "Pow":
        exponent = edit.scalar(node.input[1])
        return int(exponent) if node.input[0] == x and exponent in (2.0, 3.0) else None
    degrees = [_degree(edit, each, x) for each in node.input]
    return None if None in degrees else sum(degree or 0 for degree in degrees)
