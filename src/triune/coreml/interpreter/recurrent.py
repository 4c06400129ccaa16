"""Recurrent networks, computed step by step; x is (steps, batch, features), states are (batch, hidden)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.interpreter.activation import sigmoid
from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array

_Activation = Callable[[Array], Array]


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(0.2 * x + 0.5, 0, 1)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def _linear(x: Array) -> Array:
    return x


# The constants of the activations, alpha and beta, are Core ML's "standard default values" (coremltools' tests of
# lstm). With these scaled_tanh is tanh.
_ACTIVATIONS: Mapping[str, _Activation] = {
    "hard_sigmoid": _hard_sigmoid,
    "linear": _linear,
    "relu": _relu,
    "scaled_tanh": np.tanh,
    "sigmoid": sigmoid,
    "sigmoid_hard": _hard_sigmoid,
    "tanh": np.tanh,
}


def rnn(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None,
    direction: str,
    output_sequence: Any,
    activation: str,
) -> tuple[Array, Array]:
    """Compute h = activation(W x + R h + b) for each step, where W is `weight_ih` and R is `weight_hh`.

    Returns:
        the states of all steps, or of the last one alone without `output_sequence`; and the last state.

    Raises:
        UnsupportedError: the activation or direction is not known.
    """
    act, shift = _activation(activation), _or_zeros(bias, weight_hh)
    h, states = _batch_rows(initial_h, x), list[Array]()
    for step in _in_order(x, direction):
        h = act(step @ weight_ih.T + h @ weight_hh.T + shift)
        states.append(h)
    return _sequence(states, output_sequence), h


def gru(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None,
    direction: str,
    output_sequence: Any,
    recurrent_activation: str,
    activation: str,
    reset_after: Any,
    input_bias: Array | None,
) -> tuple[Array, Array]:
    """Compute a gated recurrent unit.

    Weights and biases have the gates in the order reset, output, update. With `reset_after` the
    reset gate multiplies R h + bias, where R is the part of `weight_hh` for the gate "output"; else it multiplies h.

    Returns:
        the states of all steps, or of the last one alone without `output_sequence`; and the last state.

    Raises:
        UnsupportedError: the activation or direction is not known.
    """
    gate, act = _activation(recurrent_activation), _activation(activation)
    w_r, w_o, w_z = np.split(weight_ih, 3)
    r_r, r_o, r_z = np.split(weight_hh, 3)
    b_r, b_o, b_z = np.split(_or_zeros(bias, weight_hh), 3)
    i_r, i_o, i_z = np.split(_or_zeros(input_bias, weight_hh), 3)
    h, states = _batch_rows(initial_h, x), list[Array]()
    for step in _in_order(x, direction):
        reset = gate(step @ w_r.T + i_r + h @ r_r.T + b_r)
        update = gate(step @ w_z.T + i_z + h @ r_z.T + b_z)
        recalled = reset * (h @ r_o.T + b_o) if reset_after else (reset * h) @ r_o.T + b_o
        output = act(step @ w_o.T + i_o + recalled)
        h = (1 - update) * output + update * h
        states.append(h)
    return _sequence(states, output_sequence), h


def lstm(
    x: Array,
    initial_h: Array,
    initial_c: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None,
    peephole: Array | None,
    weight_ih_back: Array | None,
    weight_hh_back: Array | None,
    bias_back: Array | None,
    peephole_back: Array | None,
    direction: str,
    output_sequence: Any,
    recurrent_activation: str,
    cell_activation: str,
    activation: str,
    clip: Any,
) -> tuple[Array, Array, Array]:
    """Compute a long short-term memory.

    Weights and biases have the gates in the order input, forget, output, cell; peepholes the first three. If
    `direction` is "bidirectional", states of both directions are concatenated: (batch, 2 * hidden). `clip` limits the
    cell state to [-clip, clip].

    Returns:
        the hidden states of all steps, or of the last one alone without `output_sequence`; the last hidden state; the
        last cell state.

    Raises:
        UnsupportedError: the activation or direction is not known.
        InvalidArgumentError: the direction is "bidirectional", and the weights for the reverse direction are missing.
    """
    initial_h, initial_c = _batch_rows(initial_h, x), _batch_rows(initial_c, x)
    settings = {
        "gate": _activation(recurrent_activation),
        "cell_act": _activation(cell_activation),
        "act": _activation(activation),
        "clip": clip,
        "output_sequence": output_sequence,
    }
    if direction != "bidirectional":
        weights = weight_ih, weight_hh, bias, peephole
        return _lstm_one_way(x, initial_h, initial_c, weights, direction, **settings)
    if weight_ih_back is None or weight_hh_back is None:
        raise InvalidArgumentError("a bidirectional lstm without 'weight_ih_back' and 'weight_hh_back'")
    (h, h_back), (c, c_back) = np.split(initial_h, 2, 1), np.split(initial_c, 2, 1)
    there = _lstm_one_way(x, h, c, (weight_ih, weight_hh, bias, peephole), "forward", **settings)
    weights = weight_ih_back, weight_hh_back, bias_back, peephole_back
    back = _lstm_one_way(x, h_back, c_back, weights, "reverse", **settings)
    # Bring the states of the second direction to the order of the input, in which MIL outputs them for "bidirectional".
    # For "reverse" it outputs them in the order in which they are computed.
    back = np.flip(back[0], 0), *back[1:]
    outputs, last, cell = (np.concatenate(both, -1) for both in zip(there, back, strict=True))
    return outputs, last, cell


def _lstm_one_way(
    x: Array,
    h: Array,
    c: Array,
    weights: tuple[Array, Array, Array | None, Array | None],
    direction: str,
    gate: _Activation,
    cell_act: _Activation,
    act: _Activation,
    clip: Any,
    output_sequence: Any,
) -> tuple[Array, Array, Array]:
    weight_ih, weight_hh, bias, peephole = weights
    shift = _or_zeros(bias, weight_hh)
    hidden = weight_hh.shape[1]
    p_i, p_f, p_o = np.split(np.zeros(3 * hidden, x.dtype) if peephole is None else peephole, 3)
    states: list[Array] = []
    for step in _in_order(x, direction):
        i, f, o, z = np.split(step @ weight_ih.T + h @ weight_hh.T + shift, 4, axis=1)
        c = gate(f + p_f * c) * c + gate(i + p_i * c) * cell_act(z)
        if clip is not None:
            c = np.clip(c, -clip, clip)
        h = gate(o + p_o * c) * act(c)
        states.append(h)
    return _sequence(states, output_sequence), h, c


def _activation(name: str) -> _Activation:
    if name not in _ACTIVATIONS:
        raise UnsupportedError(f"there is no activation '{name}'; there are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _or_zeros(bias: Array | None, weight_hh: Array) -> Array:
    zeros = np.zeros(len(weight_hh), np.float32)
    return zeros if bias is None else bias


def _batch_rows(state: Array, x: Array) -> Array:
    """The first rows of a state, as many as `x` has in its batch.

    For packed sequences coremltools writes states with more rows; Core ML takes the first of them.
    """
    return state[: x.shape[1]]


def _in_order(x: Array, direction: str) -> Array:
    """The steps in the order in which `direction` computes them."""
    if direction not in ("forward", "reverse"):
        raise UnsupportedError(f"there is no direction '{direction}'")
    return x if direction == "forward" else np.flip(x, 0)


def _sequence(states: list[Array], output_sequence: Any) -> Array:
    """The states of all steps, in the order in which they were computed, or only the last state."""
    return np.stack(states) if output_sequence else states[-1][None]


FAMILY: Family = {"gru": gru, "lstm": lstm, "rnn": rnn}
