"""Recurrent networks, step by step. x is (steps, batch, features); states are (batch, hidden)."""

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


# The constants are Core ML's "standard default values" (coremltools' tests of lstm), which make scaled_tanh a tanh.
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
    """H = activation(W x + R h + b): the states of all steps or the last, and the last.

    Raises:
        UnsupportedError: an unknown activation or direction.
    """
    act, shift = _activation(activation), _or_zeros(bias, weight_hh)
    h, states = _of_batch(initial_h, x), list[Array]()
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
    """A gated recurrent unit: the states of all steps or the last, and the last.

    Weights and biases hold the gates in the order reset, output, update. With `reset_after` the reset gate is applied
    to the product of the state and its weights and `bias`, else to the state.

    Raises:
        UnsupportedError: an unknown activation or direction.
    """
    gate, act = _activation(recurrent_activation), _activation(activation)
    w_r, w_o, w_z = np.split(weight_ih, 3)
    r_r, r_o, r_z = np.split(weight_hh, 3)
    b_r, b_o, b_z = np.split(_or_zeros(bias, weight_hh), 3)
    i_r, i_o, i_z = np.split(_or_zeros(input_bias, weight_hh), 3)
    h, states = _of_batch(initial_h, x), list[Array]()
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
    """A long short-term memory: the states of all steps or the last, the last, and the last cell.

    Weights and biases hold the gates in the order input, forget, output, cell; peepholes the first three. The two
    directions' states are side by side: (batch, 2 hidden). `clip` limits the cell's state.

    Raises:
        UnsupportedError: an unknown activation or direction.
        InvalidArgumentError: the weights of the way back are missing.
    """
    initial_h, initial_c = _of_batch(initial_h, x), _of_batch(initial_c, x)
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
    # Only here the way back gives its states in the order of the steps.
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


def _of_batch(state: Array, x: Array) -> Array:
    """The batch's rows. coremltools gives more of them for packed sequences, and Core ML takes those."""
    return state[: x.shape[1]]


def _in_order(x: Array, direction: str) -> Array:
    """The steps in the order of their computation."""
    if direction not in ("forward", "reverse"):
        raise UnsupportedError(f"there is no direction '{direction}'")
    return x if direction == "forward" else np.flip(x, 0)


def _sequence(states: list[Array], output_sequence: Any) -> Array:
    """The states in the order of their computation (in reverse, the last step's first), or the last."""
    return np.stack(states) if output_sequence else states[-1][None]


FAMILY: Family = {"gru": gru, "lstm": lstm, "rnn": rnn}
