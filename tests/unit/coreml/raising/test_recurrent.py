"""lstm, gru and rnn, against numpy that follows MIL's definitions step by step."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support.mil_programs import make_package, mb, run
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import Array
from triune.coreml.raising import raise_function

LENGTH, BATCH, FEATURES, HIDDEN = 5, 3, 4, 2
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "scaled_tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "sigmoid_hard": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "linear": lambda x: x,
}


def numbers(seed: int, *shape: int, dtype: Any = np.float32) -> Array:
    values: Array = np.random.default_rng(seed).uniform(-1, 1, shape)
    return values.astype(dtype)


def lstm_weights(seed: int) -> dict[str, Array]:
    return {
        "weight_ih": numbers(seed, 4 * HIDDEN, FEATURES),
        "weight_hh": numbers(seed + 1, 4 * HIDDEN, HIDDEN),
        "bias": numbers(seed + 2, 4 * HIDDEN),
        "peephole": numbers(seed + 3, 3 * HIDDEN),
    }


def lstm_steps(
    x: Array, h: Array, c: Array, weights: dict[str, Array], activations: tuple[str, str, str], clip: float
) -> tuple[Array, Array, Array]:
    """In order of computation. Gates: input, forget, output, cell."""
    recurrent, cell, last = (ACTIVATIONS[name] for name in activations)
    peephole_i, peephole_f, peephole_o = np.split(weights["peephole"], 3)
    steps: list[Array] = []
    for row in x:
        gates = row @ weights["weight_ih"].T + h @ weights["weight_hh"].T + weights["bias"]
        i, f, o, z = np.split(gates, 4, axis=-1)
        i, f = recurrent(i + peephole_i * c), recurrent(f + peephole_f * c)
        c = np.clip(f * c + i * cell(z), -clip, clip)
        h = recurrent(o + peephole_o * c) * last(c)
        steps.append(h)
    return np.stack(steps), h, c


def assert_close(outputs: list[Array], expected: list[Array], tolerance: float = 1e-5) -> None:
    assert [each.shape for each in outputs] == [each.shape for each in expected]
    for have, want in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(have, want, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("is_sequence", [True, False])
@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("last", ["tanh", "relu", "scaled_tanh", "hard_sigmoid", "linear"])
def test_lstm(direction: str, is_sequence: bool, clip: float | None, last: str) -> None:
    weights = lstm_weights(1)
    inputs = {
        "x": numbers(9, LENGTH, BATCH, FEATURES),
        "h": numbers(10, BATCH, HIDDEN),
        "c": numbers(11, BATCH, HIDDEN),
    }

    def build(given: Any) -> Any:
        more = {} if clip is None else {"clip": np.float32(clip)}
        return mb.lstm(
            x=given.x, initial_h=given.h, initial_c=given.c, **weights,
            direction=direction, output_sequence=is_sequence,
            recurrent_activation="sigmoid", cell_activation="tanh", activation=last, **more,
        )  # fmt: skip

    x = inputs["x"] if direction == "forward" else inputs["x"][::-1]
    activations = ("sigmoid", "tanh", last)
    steps, h, c = lstm_steps(x, inputs["h"], inputs["c"], weights, activations, np.inf if clip is None else clip)
    assert_close(run(build, inputs), [steps if is_sequence else steps[-1:], h, c])


@pytest.mark.parametrize("is_dynamic", [True, False])
@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
def test_only_the_batchs_rows_of_the_initial_states_count(op: str, is_dynamic: bool) -> None:
    """coremltools gives more rows for packed sequences."""
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[op]
    weights = {"weight_ih": numbers(1, gates * HIDDEN, FEATURES), "weight_hh": numbers(2, gates * HIDDEN, HIDDEN)}
    states = ["h", "c"] if op == "lstm" else ["h"]

    def build(given: Any) -> Any:
        initial = {f"initial_{name}": getattr(given, name) for name in states}
        return getattr(mb, op)(x=given.x, output_sequence=True, **initial, **weights)

    inputs = {"x": numbers(9, LENGTH, BATCH, FEATURES), **{name: numbers(10, BATCH, HIDDEN) for name in states}}
    more = {name: np.concatenate([inputs[name], numbers(11, 3, HIDDEN)]) for name in states}
    expected = run(build, inputs)
    assert_close(run(build, {**inputs, **more}, is_dynamic=is_dynamic), expected)


@pytest.mark.parametrize("is_sequence", [True, False])
@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("is_dynamic", [True, False])
def test_bidirectional_lstm(is_sequence: bool, clip: float | None, is_dynamic: bool) -> None:
    forward, backward = lstm_weights(1), lstm_weights(5)
    shape = (BATCH, 2 * HIDDEN)
    inputs = {"x": numbers(9, LENGTH, BATCH, FEATURES), "h": numbers(10, *shape), "c": numbers(11, *shape)}

    def build(given: Any) -> Any:
        more = {} if clip is None else {"clip": np.float32(clip)}
        back = {f"{name}_back": value for name, value in backward.items()}
        return mb.lstm(
            x=given.x, initial_h=given.h, initial_c=given.c, **forward, **back, direction="bidirectional",
            output_sequence=is_sequence, cell_activation="hard_sigmoid", activation="linear", **more,
        )  # fmt: skip

    compute = functools.partial(
        lstm_steps, activations=("sigmoid", "hard_sigmoid", "linear"), clip=np.inf if clip is None else clip
    )
    x, h, c = inputs["x"], np.split(inputs["h"], 2, axis=1), np.split(inputs["c"], 2, axis=1)
    there = compute(x, h[0], c[0], forward)
    back = compute(x[::-1], h[1], c[1], backward)
    sequence = np.concatenate([there[0], back[0][::-1]], axis=2)
    last_h, last_c = np.concatenate([there[1], back[1]], 1), np.concatenate([there[2], back[2]], 1)
    expected = [sequence if is_sequence else last_h[None], last_h, last_c]
    assert_close(run(build, inputs, is_dynamic=is_dynamic), expected)


def test_lstm_without_optional_weights_in_fp16() -> None:
    weights = {name: value.astype(np.float16) for name, value in lstm_weights(1).items() if "weight" in name}
    inputs = {
        "x": numbers(9, LENGTH, BATCH, FEATURES, dtype=np.float16),
        "h": numbers(10, BATCH, HIDDEN, dtype=np.float16),
        "c": numbers(11, BATCH, HIDDEN, dtype=np.float16),
    }
    outputs = run(lambda given: mb.lstm(x=given.x, initial_h=given.h, initial_c=given.c, **weights), inputs, "iOS17")
    zeros = {"bias": np.zeros(4 * HIDDEN), "peephole": np.zeros(3 * HIDDEN)}
    wide = {name: value.astype(np.float32) for name, value in {**weights, **inputs}.items()}
    steps, h, c = lstm_steps(wide["x"], wide["h"], wide["c"], {**wide, **zeros}, ("sigmoid", "tanh", "tanh"), np.inf)
    assert {each.dtype for each in outputs} == {np.dtype(np.float16)}
    assert_close(outputs, [steps[-1:], h, c], 2e-3)


def gru_steps(x: Array, h: Array, weights: dict[str, Array], activations: tuple[str, str], after: bool) -> Array:
    """In order of computation. Gates: reset, output, update."""
    recurrent, activation = (ACTIVATIONS[name] for name in activations)
    steps: list[Array] = []
    zeros = np.zeros(3 * HIDDEN, np.float32)
    bias = np.split(weights.get("bias", zeros), 3)
    input_bias = np.split(weights.get("input_bias", zeros), 3)
    w = np.split(weights["weight_ih"], 3)
    u = np.split(weights["weight_hh"], 3)
    for row in x:
        r, z = (recurrent(row @ w[k].T + input_bias[k] + h @ u[k].T + bias[k]) for k in (0, 2))
        state = r * (h @ u[1].T + bias[1]) if after else (r * h) @ u[1].T + bias[1]
        h = (1 - z) * activation(row @ w[1].T + input_bias[1] + state) + z * h
        steps.append(h)
    return np.stack(steps)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("is_sequence", [True, False])
@pytest.mark.parametrize("is_dynamic", [True, False])
@pytest.mark.parametrize("activations", [("sigmoid", "tanh"), ("tanh", "sigmoid"), ("hard_sigmoid", "relu")])
def test_gru(direction: str, is_sequence: bool, is_dynamic: bool, activations: tuple[str, str]) -> None:
    weights = {
        "weight_ih": numbers(1, 3 * HIDDEN, FEATURES),
        "weight_hh": numbers(2, 3 * HIDDEN, HIDDEN),
        "bias": numbers(3, 3 * HIDDEN),
    }
    inputs = {"x": numbers(9, LENGTH, BATCH, FEATURES), "h": numbers(10, BATCH, HIDDEN)}

    def build(given: Any) -> Any:
        return mb.gru(
            x=given.x, initial_h=given.h, **weights, direction=direction, output_sequence=is_sequence,
            recurrent_activation=activations[0], activation=activations[1],
        )  # fmt: skip

    x = inputs["x"] if direction == "forward" else inputs["x"][::-1]
    steps = gru_steps(x, inputs["h"], weights, activations, after=False)
    assert_close(run(build, inputs, is_dynamic=is_dynamic), [steps if is_sequence else steps[-1:], steps[-1]])


@pytest.mark.parametrize("after", [True, False])
def test_gru_of_ios_18(after: bool) -> None:
    weights = {
        "weight_ih": numbers(1, 3 * HIDDEN, FEATURES),
        "weight_hh": numbers(2, 3 * HIDDEN, HIDDEN),
        "bias": numbers(3, 3 * HIDDEN),
        "input_bias": numbers(4, 3 * HIDDEN),
    }
    inputs = {"x": numbers(9, LENGTH, BATCH, FEATURES), "h": numbers(10, BATCH, HIDDEN)}
    outputs = run(
        lambda given: mb.gru(x=given.x, initial_h=given.h, **weights, output_sequence=True, reset_after=after),
        inputs,
        "iOS18",
    )
    steps = gru_steps(inputs["x"], inputs["h"], weights, ("sigmoid", "tanh"), after)
    assert_close(outputs, [steps, steps[-1]])


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "sigmoid_hard", "scaled_tanh", "linear"])
def test_rnn(direction: str, activation: str) -> None:
    weights = {
        "weight_ih": numbers(1, HIDDEN, FEATURES),
        "weight_hh": numbers(2, HIDDEN, HIDDEN),
        "bias": numbers(3, HIDDEN),
    }
    inputs = {"x": numbers(9, LENGTH, BATCH, FEATURES), "h": numbers(10, BATCH, HIDDEN)}

    def build(given: Any) -> Any:
        return mb.rnn(
            x=given.x, initial_h=given.h, **weights, direction=direction, output_sequence=True, activation=activation
        )  # fmt: skip

    h = inputs["h"]
    steps: list[Array] = []
    for row in inputs["x"] if direction == "forward" else inputs["x"][::-1]:
        h = ACTIVATIONS[activation](row @ weights["weight_ih"].T + h @ weights["weight_hh"].T + weights["bias"])
        steps.append(h)
    assert_close(run(build, inputs), [np.stack(steps), h])


def test_what_is_malformed_is_named() -> None:
    inputs = {"x": numbers(9, LENGTH, BATCH, FEATURES), "h": numbers(10, BATCH, HIDDEN)}
    wrong = {"weight_ih": numbers(1, 3 * HIDDEN, FEATURES), "weight_hh": numbers(2, 3 * HIDDEN, HIDDEN)}
    package = make_package(
        lambda given: mb.gru(x=given.x, initial_h=given.h, **wrong, bias=numbers(3, 5), name="a"), inputs
    )
    with pytest.raises(InvalidArgumentError, match=r"'a_0' \(gru\): 'bias' is of shape \[5\] instead of \[6\]"):
        raise_function(package)
    package = make_package(lambda given: mb.gru(x=given.x, initial_h=given.h, **wrong, activation="softmax"), inputs)
    with pytest.raises(UnsupportedError, match="the activation 'softmax' is not one of"):
        raise_function(package)
