"""Activations of recurrent operations, with the constants that Core ML gives them."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from triune.core.errors import UnsupportedError
from triune.coreml.raising.given import Given
from triune.graph.raising.graph import Graph, Tensor

# scaled_tanh is alpha * tanh(beta * x). Core ML sets both constants to 1 here, which makes it tanh.
_OP_TYPES = MappingProxyType(
    {
        "hard_sigmoid": "HardSigmoid",
        "linear": "Affine",
        "relu": "Relu",
        "scaled_tanh": "Tanh",
        "sigmoid": "Sigmoid",
        "sigmoid_hard": "HardSigmoid",
        "tanh": "Tanh",
    }
)
_CONSTANTS = MappingProxyType({"HardSigmoid": (0.2, 0.5), "Affine": (1.0, 0.0)})


def _op_type(name: str) -> str:
    op_type = _OP_TYPES.get(name.lower())
    if op_type is None:
        raise UnsupportedError(f"the activation '{name}' is not one of {sorted(_OP_TYPES)}")
    return op_type


def attributes(given: Given, parameters: Sequence[str], directions: int) -> dict[str, Any]:
    """The attributes that give ONNX's recurrent operators their activations.

    Args:
        given: the operation.
        parameters: its parameters that name activations, in ONNX's order.
        directions: the number of directions, for each of which ONNX lists all activations.

    Raises:
        UnsupportedError: an activation is not known.
    """
    chosen = [_op_type(given.text(name)) for name in parameters] * directions
    # ONNX's attributes activation_alpha and activation_beta list the constants of only those activations that have any.
    constants = [_CONSTANTS[each] for each in chosen if each in _CONSTANTS]
    found: dict[str, Any] = {"activations": chosen}
    if constants:
        found["activation_alpha"] = [alpha for alpha, _ in constants]
        found["activation_beta"] = [beta for _, beta in constants]
    return found


def activate(graph: Graph, name: str, x: Tensor) -> Tensor:
    """Write an activation as a node.

    Raises:
        UnsupportedError: the activation is not known.
    """
    op_type = _op_type(name)
    if op_type == "Affine":
        return x
    if op_type == "HardSigmoid":
        alpha, beta = _CONSTANTS[op_type]
        return graph.op(op_type, x, alpha=alpha, beta=beta)
    return graph.op(op_type, x)
