"""Elementwise functions of one tensor, activations, and casts."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreai.raising.given import LARGEST_SIZE, SMALL, Given
from triune.coreai.raising.kernels import computed, is_float
from triune.coreai.raising.region import Raise
from triune.coreai.raising.types import Element, element_type
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType


def _float_op(op_type: str, graph: Graph, given: Given) -> Tensor:
    """Write the ONNX operator `op_type`, which computes the same for floats as Core AI's operation."""
    return graph.op(op_type, _operand(given))


def _operand(given: Given) -> Tensor:
    """The operand of a unary operation, which the dialect calls `x` or `input`."""
    return given["x" if hasattr(given.operation, "x") else "input"]


def _abs(graph: Graph, given: Given) -> Tensor:
    return computed(graph, "Abs", given["x"])


def _round(graph: Graph, given: Given) -> Tensor:
    x = given["x"]
    return graph.op("Round", x) if is_float(x) else x


def _rsqrt(graph: Graph, given: Given) -> Tensor:
    return graph.op("Reciprocal", graph.op("Sqrt", given["x"]))


def _relu(graph: Graph, given: Given) -> Tensor:
    x = given["input"]
    return graph.op("Relu", x) if is_float(x) else computed(graph, "Max", x, graph.like(0, x))


def _silu(graph: Graph, given: Given) -> Tensor:
    x = given["input"]
    return graph.op("Mul", x, graph.op("Sigmoid", x))


def _gelu(graph: Graph, given: Given) -> Tensor:
    x, approximate = given["input"], given.word("approximate")
    match approximate:
        case "none" | "tanh":
            return graph.op("Gelu", x, approximate=approximate)
        case "sigmoid":
            return graph.op("Mul", x, graph.op("Sigmoid", graph.op("Mul", x, graph.like(1.702, x))))
        case _:
            raise UnsupportedError(f"the approximation '{approximate}' is not known")


def _softmax(graph: Graph, given: Given) -> Tensor:
    x = given["input"]
    return graph.op("Softmax", x, axis=given.axis("axis"))


def _cast(graph: Graph, given: Given) -> Tensor:
    """Write a cast. Floats are rounded toward zero to integers and saturate, and NaN becomes 0, as in Apple's
    interpreter.
    """
    x, element = given["input"], given.element()
    if element.storage.itemsize == 1 and element.storage.kind not in "iub":
        return rounded_to(graph, graph.cast(x, DType.FP32), element.storage)
    if element.storage.kind not in "iu" or x.dtype is DType.BOOL:
        return graph.cast(x, given.dtype)
    if x.constant is not None and x.constant.size <= SMALL:
        known = np.nan_to_num(x.constant.astype(np.float64), nan=0.0) if is_float(x) else x.constant.astype(np.int64)
        return graph.constant(np.clip(known, element.lowest, element.highest), given.dtype)
    if is_float(x):
        return _saturated(graph, x, element)
    source = element_type(given.operation.input.type)
    if element.lowest <= source.lowest and source.highest <= element.highest:
        return graph.cast(x, given.dtype)
    if element.highest >= LARGEST_SIZE and given.is_of_sizes("input"):
        return graph.cast(x, given.dtype)
    return _clamped(graph, graph.cast(x, DType.INT64), element.lowest, element.highest)


def _saturated(graph: Graph, x: Tensor, element: Element) -> Tensor:
    x = graph.cast(x, DType.FP32) if x.dtype is DType.FP16 else x
    is_none = graph.op("IsNaN", x, dtype=DType.BOOL)
    known = graph.op("Where", is_none, graph.like(0, x), x, dtype=x.dtype)
    if element.bits <= 16:
        return _clamped(graph, known, element.lowest, element.highest)
    # The largest integer, 2^31 - 1 for example, is no float, but 2^31 is one. So clamp floats to 2^31, and the integers
    # that they become to 2^31 - 1.
    near = _clamped(graph, known, element.lowest, min(element.highest + 1, 1 << 62))
    return _clamped(graph, graph.cast(near, DType.INT64), element.lowest, min(element.highest, (1 << 63) - 1))


def _clamped(graph: Graph, x: Tensor, low: int, high: int) -> Tensor:
    return graph.op("Min", graph.op("Max", x, graph.like(low, x)), graph.like(high, x))


def rounded_to(graph: Graph, x: Tensor, storage: "np.dtype[np.generic]") -> Tensor:
    """Round fp32 to the numbers that an 8-bit float type has.

    Raises:
        UnsupportedError: ONNX does not round to that type.
    """
    kinds = {"float8_e4m3fn": 17, "float8_e5m2": 19}
    if storage.name not in kinds:
        raise UnsupportedError(f"rounding to {storage.name}")
    narrow = graph.op("Cast", x, to=kinds[storage.name], saturate=1)
    return graph.op("Cast", narrow, dtype=DType.FP32, to=1)


def _not(graph: Graph, given: Given) -> Tensor:
    return graph.op("Not", given["x"])


def _identity(graph: Graph, given: Given) -> Tensor:
    del graph
    return given["source"]


_SAME = MappingProxyType(
    {
        "acos": "Acos",
        "acosh": "Acosh",
        "asin": "Asin",
        "asinh": "Asinh",
        "atan": "Atan",
        "atanh": "Atanh",
        "cos": "Cos",
        "cosh": "Cosh",
        "erf": "Erf",
        "exp": "Exp",
        "log": "Log",
        "sigmoid": "Sigmoid",
        "sin": "Sin",
        "sinh": "Sinh",
        "sqrt": "Sqrt",
        "tan": "Tan",
        "tanh": "Tanh",
    }
)

TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        **{name: partial(_float_op, op_type) for name, op_type in _SAME.items()},
        "abs": _abs,
        "cast": _cast,
        "coreaix.cast": lambda graph, given: graph.cast(given["source"], given.dtype),
        "coreaix.copy_discarding_constraints": _identity,
        "coreaix.copy_with_constraints": _identity,
        "coreaix.view": _identity,
        "gelu": _gelu,
        "not": _not,
        "relu": _relu,
        "round": _round,
        "rsqrt": _rsqrt,
        "silu": _silu,
        "softmax": _softmax,
    }
)
