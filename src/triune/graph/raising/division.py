"""Divisions that round towards 0 or down, and their remainders, as ONNX nodes.

Integers of 32 bits are divided in INT64, where quotients and remainders never overflow. A divisor of 0 is replaced by
1, since a division by 0 may kill the process; Apple's runtimes do not define the result.
"""

from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType


def quotient(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """`x / y` of floats.

    1 / y is written as Reciprocal. If it were a Div, ONNX Runtime would replace (1 / y) * x by x / y, which may differ
    in the last bit: 41 * (1 / 41) is below 1 in fp32, and a Floor makes it 0.
    """
    one = x.constant
    is_one = one is not None and one.size == 1 and float(one.reshape(-1)[0]) == 1
    if is_one and (x.rank == 0 or (y.shape is not None and x.rank <= y.rank)):
        return graph.op("Reciprocal", y)
    return graph.op("Div", x, y)


def truncated_quotient(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """`x / y` rounded towards zero, in the type of `x`."""
    a, b = _operands(graph, x, y)
    return graph.cast(graph.op("Div", a, b), x.dtype)


def floor_quotient(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """`x / y` rounded down, in the type of `x`."""
    a, b = _operands(graph, x, y)
    # (a - mod(a, b)) / b would be shorter, but the difference may be beyond int32, in which converted programs compute.
    zero = graph.like(0, a)
    signs = [graph.op("Less", each, zero, dtype=DType.BOOL) for each in (a, b)]
    has_rest = graph.op("Not", graph.op("Equal", graph.op("Mod", a, b), zero, dtype=DType.BOOL))
    is_lower = graph.op("And", has_rest, graph.op("Xor", *signs))
    return graph.cast(graph.op("Sub", graph.op("Div", a, b), graph.cast(is_lower, a.dtype)), x.dtype)


def floor_remainder(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """The remainder of `floor_quotient`, which has the sign of `y`."""
    a, b = _operands(graph, x, y)
    return graph.cast(graph.op("Mod", a, b), x.dtype)


def truncated_remainder(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """The remainder of `truncated_quotient`, which has the sign of `x`."""
    a, b = _operands(graph, x, y)
    return graph.cast(graph.op("Sub", a, graph.op("Mul", graph.op("Div", a, b), b)), x.dtype)


def floor_quotient_of_floats(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """`x / y` rounded down as numpy's `floor_divide` does it, in the type of `x`.

    floor(x / y) would be wrong in floats: 3 / 0.3 is rounded to 10, although the fp32 number nearest to 0.3 is a little
    larger and goes into 3 only 9 times. (x - mod(x, y)) / y with the exact remainder is right (numpy's `npy_divmod`).
    numpy computes fp16 in fp32.
    """
    if x.dtype is DType.FP16:
        wide = floor_quotient_of_floats(graph, graph.cast(x, DType.FP32), graph.cast(y, DType.FP32))
        return graph.cast(wide, x.dtype)
    zero, one = graph.like(0, x), graph.like(1, x)
    remainder = graph.op("Mod", x, y, fmod=1)
    quotient = graph.op("Div", graph.op("Sub", x, remainder), y)
    quotient = graph.op(
        "Where", _has_other_sign(graph, remainder, y), graph.op("Sub", quotient, one), quotient, dtype=x.dtype
    )
    floor = graph.op("Floor", quotient)
    is_next = graph.op("Greater", graph.op("Sub", quotient, floor), graph.like(0.5, x), dtype=DType.BOOL)
    floor = graph.op("Where", is_next, graph.op("Add", floor, one), floor, dtype=x.dtype)
    # For y = 0, which has no remainder, return x / y itself, which is infinite.
    return graph.op("Where", graph.op("Equal", y, zero, dtype=DType.BOOL), graph.op("Div", x, y), floor, dtype=x.dtype)


def floor_remainder_of_floats(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """The remainder of `floor_quotient_of_floats`, which has the sign of `y`, as with Python's `%`."""
    remainder = graph.op("Mod", x, y, fmod=1)
    return graph.op(
        "Where", _has_other_sign(graph, remainder, y), graph.op("Add", remainder, y), remainder, dtype=x.dtype
    )


def _has_other_sign(graph: Graph, remainder: Tensor, y: Tensor) -> Tensor:
    """Whether the remainder is not 0 and its sign differs from that of `y`."""
    zero = graph.like(0, remainder)
    is_not_zero = graph.op("Not", graph.op("Equal", remainder, zero, dtype=DType.BOOL))
    signs = [graph.op("Less", each, zero, dtype=DType.BOOL) for each in (remainder, y)]
    return graph.op("And", is_not_zero, graph.op("Xor", *signs))


def _operands(graph: Graph, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = graph.cast(x, DType.INT64), graph.cast(y, DType.INT64)
    if y.constant is None or not y.constant.all():
        is_zero = graph.op("Equal", y, graph.like(0, y), dtype=DType.BOOL)
        y = graph.op("Where", is_zero, graph.like(1, y), y, dtype=y.dtype)
    return x, y
