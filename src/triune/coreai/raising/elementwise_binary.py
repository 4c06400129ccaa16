"""Functions of two tensors, element by element, which broadcast as numpy's do; `where`."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import computed, is_float, where, wide
from triune.coreai.raising.region import Raise
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType


def _operands(given: Given) -> tuple[Tensor, Tensor]:
    """The dialect calls them `x` and `y`, or `input` and `other`."""
    if hasattr(given.operation, "y"):
        return given["x"], given["y"]
    return given["input"], given["other"]


def _same(op_type: str, on_bool: str, graph: Graph, given: Given) -> Tensor:
    x, y = _operands(given)
    if x.dtype is DType.BOOL:
        return graph.op(on_bool, x, y)
    return computed(graph, op_type, x, y)


def _logical(op_type: str, graph: Graph, given: Given) -> Tensor:
    return graph.op(op_type, *_operands(given))


def _compare(op_type: str, graph: Graph, given: Given) -> Tensor:
    return computed(graph, op_type, *_operands(given), dtype=DType.BOOL)


def _not_equal(graph: Graph, given: Given) -> Tensor:
    return graph.op("Not", _compare("Equal", graph, given))


def _whole(graph: Graph, x: Tensor, y: Tensor, divide: Callable[[Graph, Tensor, Tensor], Tensor]) -> Tensor:
    """A division of whole numbers, by a divisor on which no processor ends the process: neither 0 nor, of the lowest
    number, -1. Core AI leaves open what those give.
    """
    if y.constant is None or not y.constant.all() or (y.constant == -1).any():
        x, y = (graph.cast(each, DType.INT64) for each in (x, y))
        is_zero = graph.op("Equal", y, graph.like(0, y), dtype=DType.BOOL)
        y = graph.op("Where", is_zero, graph.like(1, y), y, dtype=y.dtype)
        return divide(graph, x, y)
    return divide(graph, wide(graph, x), wide(graph, y))


def _divide(graph: Graph, given: Given) -> Tensor:
    """Whole numbers round to zero, as ONNX's do."""
    x, y = _operands(given)
    if is_float(x):
        return graph.op("Div", x, y)
    return graph.cast(_whole(graph, x, y, lambda graph, x, y: graph.op("Div", x, y)), x.dtype)


def _floor_divide(graph: Graph, given: Given) -> Tensor:
    x, y = _operands(given)
    if is_float(x):
        return graph.op("Floor", graph.op("Div", x, y))

    def divide(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
        # Without its rest, which has the divisor's sign, nothing is rounded.
        return graph.op("Div", graph.op("Sub", x, graph.op("Mod", x, y)), y)

    return graph.cast(_whole(graph, x, y, divide), x.dtype)


def _modulo(graph: Graph, given: Given) -> Tensor:
    """The rest has the sign of `x`."""
    x, y = _operands(given)
    if is_float(x):
        return graph.op("Mod", x, y, fmod=1)

    def divide(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
        return graph.op("Sub", x, graph.op("Mul", graph.op("Div", x, y), y))

    return graph.cast(_whole(graph, x, y, divide), x.dtype)


def _where(graph: Graph, given: Given) -> Tensor:
    return where(graph, given["condition"], given["a"], given["b"])


_EITHER: Mapping[str, Raise] = MappingProxyType(
    {
        "add": partial(_same, "Add", "Or"),
        "and": partial(_logical, "And"),
        "bitwise_and": partial(_same, "BitwiseAnd", "And"),
        "bitwise_or": partial(_same, "BitwiseOr", "Or"),
        "bitwise_xor": partial(_same, "BitwiseXor", "Xor"),
        "divide": _divide,
        "equal": partial(_compare, "Equal"),
        "floor_divide": _floor_divide,
        "greater": partial(_compare, "Greater"),
        "maximum": partial(_same, "Max", "Or"),
        "minimum": partial(_same, "Min", "And"),
        "modulo": _modulo,
        "mul": partial(_same, "Mul", "And"),
        "not_equal": _not_equal,
        "or": partial(_logical, "Or"),
        "pow": partial(_same, "Pow", "Or"),
        "sub": partial(_same, "Sub", "Xor"),
        "where": _where,
        "xor": partial(_logical, "Xor"),
    }
)

TABLE: Mapping[str, Raise] = MappingProxyType(
    {**_EITHER, **{f"broadcasting_{name}": raiser for name, raiser in _EITHER.items()}}
)
