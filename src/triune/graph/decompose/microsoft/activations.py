"""Activation functions of com.microsoft, as operators or fused into the operator before them."""

from collections.abc import Mapping

from onnx import TensorProto

from triune.graph.builder import Builder
from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)

_PARAMETERS: Mapping[str, Mapping[str, float]] = {
    "Relu": {},
    "Tanh": {},
    "Sigmoid": {},
    "Softplus": {},
    "Softsign": {},
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "ThresholdedRelu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
}
"""The activations that ONNX Runtime fuses, with their attributes in the order of its `activation_params`, and ONNX's
default values.
"""


def activated(b: Builder, x: str, name: str, parameters: Mapping[str, float], elem_type: int) -> str:
    """Build the activation `name` of `x`.

    Args:
        b: collects the nodes.
        x: the name of the operand.
        name: the activation; "" for none.
        parameters: attributes of the activation that differ from the defaults; for Clip `min` and `max`.
        elem_type: the type of `x`, a TensorProto.DataType.

    Raises:
        Refusal: `name` is not an activation that ONNX Runtime fuses.
    """
    if not name:
        return x
    if name == "Clip":
        limits = [b.typed(parameters[end], elem_type) for end in ("min", "max")]
        return b.op("Clip", x, *limits)
    if name not in _PARAMETERS:
        raise Refusal(f"the activation '{name}' fused into it is unknown; save the model without optimization")
    return b.op(name, x, **{**_PARAMETERS[name], **parameters})


def in_order(name: str, values: list[float]) -> Mapping[str, float]:
    """The parameters of an activation by name, from a list in the order of `activation_params`."""
    names = ["min", "max"] if name == "Clip" else list(_PARAMETERS.get(name, ()))
    return dict(zip(names, values, strict=False))


def gelu(c: Context) -> bool:
    """Gelu: x * Phi(x), where Phi is the distribution function of the normal distribution."""
    c.give(c.build.op("Gelu", c.input(0)))
    return True


def bias_gelu(c: Context) -> bool:
    """BiasGelu: Gelu of A + B."""
    c.give(c.build.op("Gelu", c.build.op("Add", c.input(0), c.input(1))))
    return True


def fast_gelu(c: Context) -> bool:
    """FastGelu: Gelu's approximation by tanh, of X or X + bias."""
    b, x = c.build, c.input(0)
    biased = b.op("Add", x, c.input(1)) if c.input(1) else x
    c.give(b.op("Gelu", biased, approximate="tanh"))
    return True


def quick_gelu(c: Context) -> bool:
    """QuickGelu: x * sigmoid(alpha * x)."""
    b, x, elem_type = c.build, c.input(0), c.values.elem_type(c.input(0))
    if elem_type not in _FLOATS:
        return False
    scaled = b.op("Mul", x, b.typed(c.attributes.get("alpha", 1.702), elem_type))
    c.give(b.op("Mul", x, b.op("Sigmoid", scaled)))
    return True


TABLE: dict[str, Decomposition] = {
    "Gelu": gelu,
    "BiasGelu": bias_gelu,
    "FastGelu": fast_gelu,
    "QuickGelu": quick_gelu,
}
