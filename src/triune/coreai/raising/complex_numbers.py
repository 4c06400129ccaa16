"""Complex numbers as two tensors, the real and imaginary parts. Inputs and outputs have both in a last axis of
size 2.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

from triune.core.errors import UnsupportedError
from triune.coreai.raising.given import Given
from triune.coreai.raising.region import Raise
from triune.coreai.raising.values import Complex, Held
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType

Calculate: TypeAlias = Callable[[Graph, Sequence[Complex]], Held]


def to_pairs(graph: Graph, value: Complex) -> Tensor:
    """Stack the real and imaginary parts along a new last axis of size 2."""
    rank = value.real.rank
    return graph.op("Concat", *(graph.unsqueeze(part, rank) for part in (value.real, value.imaginary)), axis=rank)


def from_pairs(graph: Graph, pairs: Tensor) -> Complex:
    """Split a tensor with a last axis of size 2 into real and imaginary parts."""
    last = pairs.rank - 1
    parts = [graph.op("Gather", pairs, graph.constant(place, DType.INT64), axis=last) for place in (0, 1)]
    shape = (pairs.shape or ())[:-1]
    return Complex(*(Tensor(part.name, part.dtype, shape) for part in parts))


def _create(graph: Graph, given: Given) -> Complex:
    del graph
    return Complex(given["real"], given["imaginary"])


def _part(name: str, graph: Graph, given: Given) -> Held:
    value = given.of(Complex, "input")
    del graph
    return value.real if name == "real" else value.imaginary


def _mul(graph: Graph, operands: Sequence[Complex]) -> Complex:
    x, y = operands
    real = graph.op("Sub", graph.op("Mul", x.real, y.real), graph.op("Mul", x.imaginary, y.imaginary))
    imaginary = graph.op("Add", graph.op("Mul", x.real, y.imaginary), graph.op("Mul", x.imaginary, y.real))
    return Complex(real, imaginary)


def _divide(graph: Graph, operands: Sequence[Complex]) -> Complex:
    x, y = operands
    square = graph.op("Add", graph.op("Mul", y.real, y.real), graph.op("Mul", y.imaginary, y.imaginary))
    above = _mul(graph, [x, Complex(y.real, graph.op("Neg", y.imaginary))])
    return Complex(graph.op("Div", above.real, square), graph.op("Div", above.imaginary, square))


def _from_products(
    real: tuple[str, str], imaginary: tuple[str, str], graph: Graph, operands: Sequence[Complex]
) -> Complex:
    """Make a complex result, each part of which is f(x.real) * g(x.imaginary).

    For each part of the result, `real` and `imaginary` name the operators f and g. For example, the parts of
    exp(a + bi) are e^a cos(b) and e^a sin(b).
    """
    (x,) = operands
    pairs = [(graph.op(name, x.real), graph.op(other, x.imaginary)) for name, other in (real, imaginary)]
    return Complex(*(graph.op("Mul", *pair) for pair in pairs))


def _equal(graph: Graph, operands: Sequence[Complex]) -> Tensor:
    x, y = operands
    pairs = ((x.real, y.real), (x.imaginary, y.imaginary))
    return graph.op("And", *(graph.op("Equal", *pair, dtype=DType.BOOL) for pair in pairs))


def _not_equal(graph: Graph, operands: Sequence[Complex]) -> Tensor:
    return graph.op("Not", _equal(graph, operands))


_CALCULATED: Mapping[str, Calculate] = MappingProxyType(
    {
        "cosh": partial(_from_products, ("Cosh", "Cos"), ("Sinh", "Sin")),
        "divide": _divide,
        "equal": _equal,
        "exp": partial(_from_products, ("Exp", "Cos"), ("Exp", "Sin")),
        "mul": _mul,
        "not_equal": _not_equal,
        "sin": partial(_from_products, ("Sin", "Cosh"), ("Cos", "Sinh")),
        "sinh": partial(_from_products, ("Sinh", "Cos"), ("Cosh", "Sin")),
    }
)
_PARTWISE = frozenset(
    {
        "add",
        "broadcast_in_dims",
        "broadcast_to",
        "concat",
        "expand_dims",
        "gather_along_axis",
        "gather_nd",
        "get_shape",
        "pad",
        "reduce_sum",
        "reshape",
        "reverse",
        "scatter_along_axis",
        "scatter_nd",
        "shrink_dims",
        "slice",
        "slice_update",
        "split",
        "sub",
        "sum_pool_2d",
        "sum_pool_3d",
        "tile",
        "transpose",
        "where",
    }
)


def on_parts(table: Mapping[str, Raise]) -> Mapping[str, Raise]:
    """Extend a table to complex numbers: an operation that is the same for both parts is raised for each of them."""
    both = {name: partial(_raised, name.removeprefix("broadcasting_"), raiser) for name, raiser in table.items()}
    parts: dict[str, Raise] = {
        "create_complex": _create,
        "imaginary_part": partial(_part, "imaginary"),
        "real_part": partial(_part, "real"),
    }
    return MappingProxyType({**both, **parts})


def _raised(name: str, raiser: Raise, graph: Graph, given: Given) -> Held | Sequence[Held]:
    operands = given.all()
    numbers = [each for each in operands if isinstance(each, Complex)]
    if not numbers:
        return raiser(graph, given)
    if name in _CALCULATED and len(numbers) == len(operands):
        return _CALCULATED[name](graph, numbers)
    if name not in _PARTWISE:
        raise UnsupportedError("it computes with complex numbers, which ONNX does not have")
    real, imaginary = (raiser(graph, given.replaced(part)) for part in (_real, _imaginary))
    if name == "get_shape":
        return real
    if isinstance(real, Sequence) and isinstance(imaginary, Sequence):
        return [_pair(*each) for each in zip(real, imaginary, strict=True)]
    return _pair(real, imaginary)


def _pair(real: Any, imaginary: Any) -> Complex:
    return Complex(real, imaginary)


def _real(value: Held) -> Held:
    return value.real if isinstance(value, Complex) else value


def _imaginary(value: Held) -> Held:
    return value.imaginary if isinstance(value, Complex) else value
