"""Functions of one tensor, element by element, and activations."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.graph.raising.graph import Graph, Tensor

_FLOATS = (DType.FP16, DType.FP32)
_CAST_DTYPES = MappingProxyType({dtype.value: dtype for dtype in DType if dtype is not DType.STRING})
# Names of element types in the operation `cast` that differ from those in MIL's files.
_SPELLINGS = MappingProxyType({"float16": "fp16", "float32": "fp32", "double": "fp64", "float": "fp32", "int": "int32"})


def dtype_called(name: str) -> DType:
    """The element type that a parameter names.

    Raises:
        UnsupportedError: no type has that name.
    """
    dtype = _CAST_DTYPES.get(_SPELLINGS.get(name, name))
    if dtype is None:
        raise UnsupportedError(f"the element type '{name}' is not known")
    return dtype


def _float_op(op_type: str, graph: Graph, given: Given) -> Tensor:
    """Write the ONNX operator `op_type`, which computes the same as the MIL operation."""
    return graph.op(op_type, given["x"])


def _identity(graph: Graph, given: Given) -> Tensor:
    return given["x"]


def _cast(graph: Graph, given: Given) -> Tensor:
    x, dtype = given["x"], dtype_called(given.text("dtype"))
    return graph.cast(x, dtype)


def _exp2(graph: Graph, given: Given) -> Tensor:
    x = given["x"]
    return graph.op("Pow", graph.like(2, x), x)


def _square(graph: Graph, given: Given) -> Tensor:
    x = given["x"]
    return graph.op("Mul", x, x)


def _inverse(graph: Graph, given: Given) -> Tensor:
    """Write 1 / (x + epsilon)."""
    x = given["x"]
    return graph.op("Reciprocal", graph.op("Add", x, graph.like(given.array("epsilon"), x)))


def _rsqrt(graph: Graph, given: Given) -> Tensor:
    """Write 1 / sqrt(x + epsilon)."""
    x = given["x"]
    return graph.op("Reciprocal", graph.op("Sqrt", graph.op("Add", x, graph.like(given.array("epsilon"), x))))


def _log(graph: Graph, given: Given) -> Tensor:
    """Write log(x + epsilon)."""
    x = given["x"]
    return graph.op("Log", graph.op("Add", x, graph.like(given.array("epsilon"), x)))


def _clip(graph: Graph, given: Given) -> Tensor:
    return _clamp(graph, given["x"], given.number("alpha"), given.number("beta"))


def _clamp(graph: Graph, x: Tensor, low: float, high: float) -> Tensor:
    lower, upper = graph.like(low, x), graph.like(high, x)
    if low <= high and x.dtype is DType.FP32:
        # With both limits, write Clip rather than Min and Max, since ONNX Runtime fuses only Clip into a preceding
        # Conv.
        return graph.op("Clip", x, lower, upper)
    return graph.op("Min", graph.op("Max", x, lower), upper)


def _threshold(graph: Graph, given: Given) -> Tensor:
    x = given["x"]
    return graph.op("Max", x, graph.like(given.array("alpha"), x))


def _relu6(graph: Graph, given: Given) -> Tensor:
    return _clamp(graph, given["x"], 0, 6)


def _silu(graph: Graph, given: Given) -> Tensor:
    x = given["x"]
    return graph.op("Mul", x, graph.op("Sigmoid", x))


def _gelu(graph: Graph, given: Given) -> Tensor:
    x, mode = given["x"], given.text("mode")
    match mode:
        case "EXACT":
            return graph.op("Gelu", x)
        case "TANH_APPROXIMATION":
            return graph.op("Gelu", x, approximate="tanh")
        case "SIGMOID_APPROXIMATION":
            return graph.op("Mul", x, graph.op("Sigmoid", graph.op("Mul", x, graph.like(1.702, x))))
        case _:
            raise UnsupportedError(f"the mode '{mode}' is not known")


def _with_alpha(op_type: str, graph: Graph, given: Given) -> Tensor:
    """Write the activation `op_type` of ONNX, which has an attribute `alpha`."""
    return graph.op(op_type, given["x"], alpha=given.number("alpha"))


def _thresholded_relu(graph: Graph, given: Given) -> Tensor:
    """Write x where x >= alpha, else 0. ONNX's ThresholdedRelu is 0 for x = alpha."""
    x = given["x"]
    return graph.op(
        "Where",
        graph.op("GreaterOrEqual", x, graph.like(given.array("alpha"), x), dtype=DType.BOOL),
        x,
        graph.like(0, x),
        dtype=x.dtype,
    )


def _linear_activation(graph: Graph, given: Given) -> Tensor:
    """Write alpha * x + beta."""
    x = given["x"]
    return graph.op("Add", graph.op("Mul", x, graph.like(given.array("alpha"), x)), graph.like(given.array("beta"), x))


def _clamped_relu(graph: Graph, given: Given) -> Tensor:
    """Write min(beta, x) where x >= 0, else min(beta, alpha * x)."""
    x = given["x"]
    positive = graph.op("GreaterOrEqual", x, graph.like(0, x), dtype=DType.BOOL)
    scaled = graph.op("Mul", x, graph.like(given.array("alpha"), x))
    chosen = graph.op("Where", positive, x, scaled, dtype=x.dtype)
    return graph.op("Min", chosen, graph.like(given.array("beta"), x))


def _scaled_tanh(graph: Graph, given: Given) -> Tensor:
    """Write alpha * tanh(beta * x)."""
    x = given["x"]
    inner = graph.op("Tanh", graph.op("Mul", x, graph.like(given.array("beta"), x)))
    return graph.op("Mul", inner, graph.like(given.array("alpha"), x))


def _sigmoid_hard(graph: Graph, given: Given) -> Tensor:
    return _clamp(graph, _linear_activation(graph, given), 0, 1)


def _per_channel(graph: Graph, given: Given, name: str) -> Tensor:
    """Reshape a vector with an element for each channel, which is axis 1 of `x`, so that it broadcasts to `x`."""
    x, value = given["x"], given.array(name)
    if value.ndim != 1 or x.rank < 2 or (x.size(1) not in (None, value.size, 1) and value.size != 1):
        raise InvalidArgumentError(f"'{name}' of shape {list(value.shape)} for {x.size(1)} channels")
    return graph.like(value.reshape([-1] + [1] * (x.rank - 2)), x)


def _prelu(graph: Graph, given: Given) -> Tensor:
    return graph.op("PRelu", given["x"], _per_channel(graph, given, "alpha"))


def _softplus_parametric(graph: Graph, given: Given) -> Tensor:
    """Write alpha[c] * log(1 + e^(beta[c] * x)), where c is the channel."""
    x = given["x"]
    inner = graph.op("Softplus", graph.op("Mul", x, _per_channel(graph, given, "beta")))
    return graph.op("Mul", inner, _per_channel(graph, given, "alpha"))


def _softmax(graph: Graph, given: Given) -> Tensor:
    return graph.op("Softmax", given["x"], axis=given.axis())


def _not(graph: Graph, given: Given) -> Tensor:
    return graph.op("Not", graph.cast(given["x"], DType.BOOL))


_SAME = MappingProxyType(
    {
        "abs": "Abs",
        "acos": "Acos",
        "asin": "Asin",
        "atan": "Atan",
        "atanh": "Atanh",
        "ceil": "Ceil",
        "cos": "Cos",
        "cosh": "Cosh",
        "erf": "Erf",
        "exp": "Exp",
        "floor": "Floor",
        "relu": "Relu",
        # MIL's `round` and ONNX's Round both round to the nearest integer, and numbers halfway between two integers to
        # the even one.
        "round": "Round",
        "sigmoid": "Sigmoid",
        "sign": "Sign",
        "sin": "Sin",
        "sinh": "Sinh",
        "softplus": "Softplus",
        "softsign": "Softsign",
        "sqrt": "Sqrt",
        "tan": "Tan",
        "tanh": "Tanh",
    }
)

TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        **{name: partial(_float_op, op_type) for name, op_type in _SAME.items()},
        "cast": _cast,
        "clamped_relu": _clamped_relu,
        "clip": _clip,
        "elu": partial(_with_alpha, "Elu"),
        "exp2": _exp2,
        "gelu": _gelu,
        "identity": _identity,
        "inverse": _inverse,
        "leaky_relu": partial(_with_alpha, "LeakyRelu"),
        "linear_activation": _linear_activation,
        "log": _log,
        "logical_not": _not,
        "prelu": _prelu,
        "relu6": _relu6,
        "rsqrt": _rsqrt,
        "scaled_tanh": _scaled_tanh,
        "sigmoid_hard": _sigmoid_hard,
        "silu": _silu,
        "softmax": _softmax,
        "softplus_parametric": _softplus_parametric,
        "square": _square,
        "threshold": _threshold,
        "thresholded_relu": _thresholded_relu,
    }
)
