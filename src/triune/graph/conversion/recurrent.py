"""What the nodes of recurrent layers say in their attributes."""

from typing import TypeAlias

from triune.graph.conversion.context import NodeContext
from triune.graph.conversion.scope import V

Activation: TypeAlias = tuple[str, float | None, float | None]
"""Name, alpha and beta; None where they are left to their defaults."""

_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_WITH_ALPHA = frozenset(["Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu"])
_WITH_BETA = frozenset(["Affine", "ScaledTanh", "HardSigmoid"])


def activations_of(c: NodeContext[V]) -> list[Activation]:
    """The activations of each direction, in ONNX's order."""
    number = 2 if c.attributes.get("direction", "forward") == "bidirectional" else 1
    names = list(c.attributes.get("activations", _DEFAULTS[c.node.op_type] * number))
    alphas = list(c.attributes.get("activation_alpha", []))
    betas = list(c.attributes.get("activation_beta", []))
    found: list[Activation] = []
    for name in names:
        # The lists have elements only for those activations that take them.
        alpha = alphas.pop(0) if name in _WITH_ALPHA and alphas else None
        beta = betas.pop(0) if name in _WITH_BETA and betas else None
        found.append((name, alpha, beta))
    return found
