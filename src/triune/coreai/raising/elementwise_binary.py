"""Elementwise functions of two tensors, which broadcast as in numpy; and `where`."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import computed, is_float, where
from triune.coreai.raising.region import Raise
from triune.graph.raising.division import floor_quotient, quotient, truncated_quotient, truncated_remainder
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType


def _operands(given: Given) -> tuple[Tensor, Tensor]:
    """The two operands. The dialect calls them `x` and `y`, or `input` and `other`."""
    first, second = _names(given)
    return given[first], given[second]


def _names(given: Given) -> tuple[str, str]:
    return ("x", "y") if hasattr(given.operation, "y") else ("input", "other")


def _same(op_type: str, on_bool: str, graph: Graph, given: Given) -> Tensor:
    x, y = _operands(given)
    if x.dtype is DType.BOOL:
        return graph.op(on_bool, x, y)
    return computed(graph, op_type, x, y)


def _maximum(graph: Graph, given: Given) -> Tensor:
    """Write Max; or x for max(x, x), a barrier that keeps Apple's compiler from fusing two operations."""
    x, y = _operands(given)
    return x if x is y else _same("Max", "Or", graph, given)


def _minimum(graph: Graph, given: Given) -> Tensor:
    """Write Min; or Clip for min(max(x, low), high) with constant limits.

    ONNX Runtime fuses a Clip, but not Min and Max, into the preceding Conv.
    """
    x, y = _operands(given)
    first, _ = _names(given)
    high = _number(y)
    if x.dtype is not DType.FP32 or high is None or y.rank > x.rank:
        return _same("Min", "And", graph, given)
    below = _maximum_before(given, first)
    if below is not None and below[1] <= high:
        return graph.op("Clip", below[0], graph.like(below[1], x), graph.like(high, x))
    return _same("Min", "And", graph, given)


def _maximum_before(given: Given, name: str) -> tuple[Tensor, float] | None:
    """If the operand is max(x, constant), return x and the constant; else None."""
    relu = given.producer(name, "coreai.relu")
    if relu is not None:
        return relu["input"], 0.0
    for prefix in ("coreai.", "coreai.decomposable.broadcasting_"):
        before = given.producer(name, f"{prefix}maximum")
        if before is not None:
            x, y = _operands(before)
            low = _number(y)
            # Return None if the rank of the constant is higher, since max(x, constant) then broadcasts x.
            return None if low is None or y.rank > x.rank else (x, low)
    return None


def _number(tensor: Tensor) -> float | None:
    """The number in a constant of one element; None for other tensors."""
    value = tensor.constant
    return None if value is None or value.size != 1 else float(value.reshape(-1)[0])


def _logical(op_type: str, graph: Graph, given: Given) -> Tensor:
    return graph.op(op_type, *_operands(given))


def _compare(op_type: str, graph: Graph, given: Given) -> Tensor:
    return computed(graph, op_type, *_operands(given), dtype=DType.BOOL)


def _not_equal(graph: Graph, given: Given) -> Tensor:
    return graph.op("Not", _compare("Equal", graph, given))


def _divide(graph: Graph, given: Given) -> Tensor:
    """Write a quotient. For integers it is rounded toward zero, as in ONNX."""
    x, y = _operands(given)
    return quotient(graph, x, y) if is_float(x) else truncated_quotient(graph, x, y)


def _floor_divide(graph: Graph, given: Given) -> Tensor:
    """Write floor(x / y), the quotient of floats rounded down. It is computed in fp32 for fp16. Where y is 1, as
    programs write floor(x), the result is Floor.
    """
    x, y = _operands(given)
    if not is_float(x):
        return floor_quotient(graph, x, y)
    if _number(y) == 1 and y.rank <= x.rank:
        return graph.op("Floor", x)
    if x.dtype is not DType.FP16:
        return graph.op("Floor", graph.op("Div", x, y))
    quotient = graph.op("Div", graph.cast(x, DType.FP32), graph.cast(y, DType.FP32))
    return graph.cast(graph.op("Floor", quotient), x.dtype)


def _modulo(graph: Graph, given: Given) -> Tensor:
    """Write the remainder with the sign of `x`."""
    x, y = _operands(given)
    return graph.op("Mod", x, y, fmod=1) if is_float(x) else truncated_remainder(graph, x, y)


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
        "maximum": _maximum,
        "minimum": _minimum,
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
