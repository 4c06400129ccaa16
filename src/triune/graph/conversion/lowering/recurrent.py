"""Read LSTM, GRU and RNN nodes: their attributes, and their inputs as (steps, batch, ...) for both values of
`layout`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias

from triune.graph.conversion.context import NodeContext
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import V

Activation: TypeAlias = tuple[str, float | None, float | None]
"""The name, alpha and beta of an activation; None for a default."""

_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_WITH_ALPHA = frozenset(["Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu"])
_WITH_BETA = frozenset(["Affine", "ScaledTanh", "HardSigmoid"])


@dataclass(frozen=True, slots=True)
class Layer(Generic[V]):
    """The inputs of a recurrent node, with the steps as first axis and the batch as second.

    Attributes:
        x: the input (steps, batch, inputs).
        lengths: (batch,) the number of valid steps of each row of the batch; None if all are valid.
        hidden: the size of the hidden state.
        directions: ["forward"], ["reverse"], or both.
        states: the initial states, each (directions, batch, hidden).
    """

    x: V
    lengths: V | None
    hidden: int
    directions: list[str]
    states: list[V]


def directions_of(c: NodeContext[V]) -> list[str]:
    """The directions in which the node goes through the steps: ["forward"], ["reverse"], or both."""
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
        # activation_alpha and activation_beta have elements only for activations that take them.
        alpha = alphas.pop(0) if name in _WITH_ALPHA and alphas else None
        beta = betas.pop(0) if name in _WITH_BETA and betas else None
        found.append((name, alpha, beta))
    each = len(found) // number
    return [found[position * each : (position + 1) * each] for position in range(number)]


def layer_of(c: NodeContext[V]) -> Layer[V]:
    """The inputs of a node as a `Layer`. Omitted initial states are 0."""
    b, x = c.builder, c.input(0)
    if not b.is_float(x):
        raise Refusal("a recurrent layer of integers; cast them to FLOAT")
    is_batch_first = bool(c.attributes.get("layout", 0))
    if is_batch_first:
        x = b.transpose(x, [1, 0, 2])
    directions = directions_of(c)
    hidden = int(c.attributes.get("hidden_size", 0)) or b.shape(c.input(2))[2]
    if hidden is None:
        raise Refusal("the size of the hidden state is not known; fix the shape of the weights")
    states: list[V] = []
    for index in (5, 6)[: 2 if c.node.op_type == "LSTM" else 1]:
        if c.has(index):
            state = c.input(index)
            states.append(b.transpose(state, [1, 0, 2]) if is_batch_first else state)
        else:
            states.append(b.full([len(directions), b.dim(x, 1), hidden], 0, b.dtype(x)))
    return Layer(x, _lengths(c, x), hidden, directions, states)


def _lengths(c: NodeContext[V], x: V) -> V | None:
    if not c.has(4):
        return None
    known = c.constant(4)
    if known is not None and bool((known == c.builder.shape(x)[0]).all()):
        return None
    return c.input(4)


def give_layer(c: NodeContext[V], hidden_states: V, states: Sequence[V]) -> None:
    """Write the node's outputs, from all hidden states (steps, directions, batch, hidden) and the last states, each
    (directions, batch, hidden).
    """
    is_batch_first = bool(c.attributes.get("layout", 0))
    c.give(c.builder.transpose(hidden_states, [2, 0, 1, 3]) if is_batch_first else hidden_states)
    for index, state in enumerate(states, start=1):
        c.give(c.builder.transpose(state, [1, 0, 2]) if is_batch_first else state, index)
