"""Recurrent layers, written out and as loops, computed by Apple's interpreter and by ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from support.lowered import FLOAT, model_of
from support.lowered_coreai import check

RNG = np.random.default_rng(5)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
HIDDEN, INPUTS, BATCH = 3, 2, 2


def noise(*shape: int) -> Any:
    return (RNG.random(shape, np.float32) - 0.5).astype(np.float32)


def layer(op: str, steps: int, folder: Path, *, free: bool = False, lengths: Any = None, **attributes: Any) -> None:
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    gates = GATES[op]
    weights = {
        "w": noise(directions, gates * HIDDEN, INPUTS),
        "r": noise(directions, gates * HIDDEN, HIDDEN),
        "b": noise(directions, 2 * gates * HIDDEN),
    }
    names = ["x", "w", "r", "b", "l" if lengths is not None else ""]
    if lengths is not None:
        weights["l"] = np.array(lengths, np.int32)
        states = ["i", "j"] if op == "LSTM" else ["i"]
        weights |= {name: noise(directions, BATCH, HIDDEN) for name in states}
        names += states
    results = ["y", "h", "c"] if op == "LSTM" else ["y", "h"]
    node = helper.make_node(op, names, results, hidden_size=HIDDEN, **attributes)
    shape: Any = ["t", "n", INPUTS] if free else [steps, BATCH, INPUTS]
    outputs: Any = [(name, FLOAT, [None] * (4 if name == "y" else 3)) for name in results]
    check(model_of([node], [("x", FLOAT, shape)], outputs, **weights), folder, {"x": noise(steps, BATCH, INPUTS)})


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_layers_of_any_number_of_steps(op: str, tmp_path: Path) -> None:
    layer(op, 4, tmp_path, direction="bidirectional")
    layer(op, 20, tmp_path, direction="reverse")
    layer(op, 5, tmp_path, direction="bidirectional", free=True)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(("steps", "least"), [(4, 0), (18, 3), (18, 0)])
def test_rows_end_early_or_do_not_begin(op: str, steps: int, least: int, tmp_path: Path) -> None:
    layer(op, steps, tmp_path, direction="bidirectional", lengths=[least, steps])


def test_gates_of_every_kind(tmp_path: Path) -> None:
    layer("GRU", 3, tmp_path, linear_before_reset=1, clip=0.4)
    layer("LSTM", 3, tmp_path, activations=["HardSigmoid", "Softsign", "Relu"], activation_alpha=[0.3])
    layer("RNN", 3, tmp_path, activations=["Affine"], activation_alpha=[0.7], activation_beta=[0.1])
    layer("RNN", 3, tmp_path, activations=["ScaledTanh"], activation_alpha=[0.7], activation_beta=[0.6])
    layer("RNN", 3, tmp_path, activations=["ThresholdedRelu"], activation_alpha=[0.1])
    layer("RNN", 3, tmp_path, activations=["Elu"], activation_alpha=[0.5])
    layer("RNN", 3, tmp_path, activations=["LeakyRelu"], activation_alpha=[0.5])


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(("batch", "of_states", "steps"), [("n", 1, "t"), (1, "n", "t"), (1, "n", 4), ("n", 1, 4)])
def test_a_batch_that_is_free_in_some_operands_is_that_of_the_others(
    op: str, batch: Any, of_states: Any, steps: Any, tmp_path: Path
) -> None:
    names = ["h", "c"] if op == "LSTM" else ["h"]
    node = helper.make_node(op, ["x", "w", "r", "", "", *names], ["y", "last"], hidden_size=HIDDEN)
    inputs: Any = [("x", FLOAT, [steps, batch, INPUTS]), *((name, FLOAT, [1, of_states, HIDDEN]) for name in names)]
    weights = {"w": noise(1, GATES[op] * HIDDEN, INPUTS), "r": noise(1, GATES[op] * HIDDEN, HIDDEN)}
    outputs: Any = [("y", FLOAT, [None] * 4), ("last", FLOAT, [None] * 3)]
    feeds = {"x": noise(4, 1, INPUTS), **{name: noise(1, 1, HIDDEN) for name in names}}
    check(model_of([node], inputs, outputs, **weights), tmp_path, feeds)
