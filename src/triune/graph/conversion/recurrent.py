"""What the nodes of recurrent layers say, and the layout in which they are converted."""

from dataclasses import dataclass
from typing import Final, Generic, TypeAlias

from triune.graph.conversion.context import NodeContext
from triune.graph.conversion.scope import V

MOST_STEPS_WRITTEN_OUT: Final = 16
"""A layer of more steps becomes a loop."""

NUM_GATES: Final = {"LSTM": 4, "GRU": 3, "RNN": 1}

Activation: TypeAlias = tuple[str, float | None, float | None]
"""Name, alpha and beta; None where they are left to their defaults."""

_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_WITH_ALPHA = frozenset(["Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu"])
_WITH_BETA = frozenset(["Affine", "ScaledTanh", "HardSigmoid"])


@dataclass(frozen=True, slots=True)
class Layer(Generic[V]):
    """A node, its operands brought into one layout.

    Attributes:
        x: (steps, batch, inputs).
        lengths: of each batch row, how many steps count; None where all do.
        hidden: the size of the hidden state.
        directions: as of `directions_of`.
        states: the initial states, each (directions, batch, hidden).
    """

    x: V
    lengths: V | None
    hidden: int
    directions: list[str]
    states: list[V]


def directions_of(c: NodeContext[V]) -> list[str]:
    """In which the steps are taken: "forward", "reverse" or both."""
    direction = c.attributes.get("direction", "forward")
    return ["forward", "reverse"] if direction == "bidirectional" else [direction]


def activations_of(c: NodeContext[V]) -> list[list[Activation]]:
    """The activations of each direction, in ONNX's order."""
    number = len(directions_of(c))
    names = list(c.attributes.get("activations", _DEFAULTS[c.node.op_type] * number))
    alphas = list(c.attributes.get("activation_alpha", []))
    betas = list(c.attributes.get("activation_beta", []))
    found: list[Activation] = []
    for name in names:
        # The lists have elements only for those activations that take them.
        alpha = alphas.pop(0) if name in _WITH_ALPHA and alphas else None
        beta = betas.pop(0) if name in _WITH_BETA and betas else None
        found.append((name, alpha, beta))
    each = len(found) // number
    return [found[place * each : (place + 1) * each] for place in range(number)]
