"""Functions of two tensors, element by element, which broadcast as in numpy; and `select`."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.graph.raising.division import (
    floor_quotient,
    floor_quotient_of_floats,
    floor_remainder,
    floor_remainder_of_floats,
    quotient,
    truncated_quotient,
)
from triune.graph.raising.graph import Graph, Tensor

FLOATS = (DType.FP16, DType.FP32, DType.FP64)


def _operands(graph: Graph, given: Given) -> tuple[Tensor, Tensor]:
    """Return both operands in one element type: a constant may have another, and is cast to that of the other
    operand.
    """
    x, y = given["x"], given["y"]
    if x.constant is not None and y.constant is None:
        return graph.cast(x, y.dtype), y
    return x, graph.cast(y, x.dtype)


def _same_type(op_type: str, graph: Graph, given: Given) -> Tensor:
    return graph.op(op_type, *_operands(graph, given))


def _compare(op_type: str, graph: Graph, given: Given) -> Tensor:
    return graph.op(op_type, *_operands(graph, given), dtype=DType.BOOL)


def _not_equal(graph: Graph, given: Given) -> Tensor:
    return graph.op("Not", _compare("Equal", graph, given))


def _logical(op_type: str, graph: Graph, given: Given) -> Tensor:
    return graph.op(op_type, graph.cast(given["x"], DType.BOOL), graph.cast(given["y"], DType.BOOL))


def remainder(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """Write x - floor(x / y) * y, which has the sign of y, like Python's `%`."""
    return floor_remainder_of_floats(graph, x, y) if x.dtype in FLOATS else floor_remainder(graph, x, y)


def _mod(graph: Graph, given: Given) -> Tensor:
    return remainder(graph, *_operands(graph, given))


def _floor_div(graph: Graph, given: Given) -> Tensor:
    x, y = _operands(graph, given)
    return floor_quotient_of_floats(graph, x, y) if x.dtype in FLOATS else floor_quotient(graph, x, y)


def _real_div(graph: Graph, given: Given) -> Tensor:
    x, y = _operands(graph, given)
    return quotient(graph, x, y) if x.dtype in FLOATS else truncated_quotient(graph, x, y)


def _select(graph: Graph, given: Given) -> Tensor:
    condition, a, b = graph.cast(given["cond"], DType.BOOL), given["a"], given["b"]
    if a.dtype is DType.BOOL:
        yes = graph.op("And", condition, a)
        return graph.op("Or", yes, graph.op("And", graph.op("Not", condition), graph.cast(b, DType.BOOL)))
    return graph.op("Where", condition, a, graph.cast(b, a.dtype), dtype=a.dtype)


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "add": partial(_same_type, "Add"),
        "equal": partial(_compare, "Equal"),
        "floor_div": _floor_div,
        "greater": partial(_compare, "Greater"),
        "greater_equal": partial(_compare, "GreaterOrEqual"),
        "less": partial(_compare, "Less"),
        "less_equal": partial(_compare, "LessOrEqual"),
        "logical_and": partial(_logical, "And"),
        "logical_or": partial(_logical, "Or"),
        "logical_xor": partial(_logical, "Xor"),
        "maximum": partial(_same_type, "Max"),
        "minimum": partial(_same_type, "Min"),
        "mod": _mod,
        "mul": partial(_same_type, "Mul"),
        "not_equal": _not_equal,
        "pow": partial(_same_type, "Pow"),
        "real_div": _real_div,
        "select": _select,
        "sub": partial(_same_type, "Sub"),
    }
)
