"""Divisions of whole numbers, computed in INT64, in which quotients and remainders of 32 bits never overflow.

No divisor is 0, on which a processor may end the process: Apple's runtimes leave open what that gives.
"""

from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType


def truncated_quotient(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """`x / y` rounded towards zero, in the type of `x`."""
    a, b = _operands(graph, x, y)
    return graph.cast(graph.op("Div", a, b), x.dtype)


def floor_quotient(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """`x / y` rounded down, in the type of `x`."""
    a, b = _operands(graph, x, y)
    # Without its remainder, which has the divisor's sign, nothing is rounded.
    return graph.cast(graph.op("Div", graph.op("Sub", a, graph.op("Mod", a, b)), b), x.dtype)


def floor_remainder(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """The remainder of `floor_quotient`: of the sign of `y`."""
    a, b = _operands(graph, x, y)
    return graph.cast(graph.op("Mod", a, b), x.dtype)


def truncated_remainder(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """The remainder of `truncated_quotient`: of the sign of `x`."""
    a, b = _operands(graph, x, y)
    return graph.cast(graph.op("Sub", a, graph.op("Mul", graph.op("Div", a, b), b)), x.dtype)


def _operands(graph: Graph, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = graph.cast(x, DType.INT64), graph.cast(y, DType.INT64)
    if y.constant is None or not y.constant.all():
        is_zero = graph.op("Equal", y, graph.like(0, y), dtype=DType.BOOL)
        y = graph.op("Where", is_zero, graph.like(1, y), y, dtype=y.dtype)
    return x, y
