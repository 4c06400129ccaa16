"""Nodes that hand on their operand as it is."""

import numpy as np
import pytest

from support.one_pass import ops_after
from triune.graph.passes.neutral import Neutral


@pytest.mark.parametrize(
    "node",
    [
        "Mul(a, one)",
        "Mul(one, a)",
        "Div(a, one)",
        "Pow(a, one)",
        "Sub(a, zero)",
        "Dropout(a)",
        "Cast<to=1>(a)",
        "Transpose<perm=[0,1]>(a)",
        "Reshape(a, same)",
        "Reshape(a, copied)",
        "Flatten(a)",
        "Expand(a, ones)",
        "Tile(a, ones)",
        "Pad(a, zeros)",
        "Slice(a, zeros2, ends)",
        "Max(a)",
        "Concat<axis=0>(a)",
        "Identity(a)",
    ],
)
def test_is_removed(node: str) -> None:
    text = f"""g (float[2,3] x) => (float[2,3] y)
      <float one = {{1}}, float zero = {{0}}, int64[2] same = {{2, 3}}, int64[2] copied = {{0, -1}},
       int64[2] ones = {{1, 1}},
       int64[4] zeros = {{0, 0, 0, 0}}, int64[2] zeros2 = {{0, 0}}, int64[2] ends = {{2, 9223372036854775807}}>
      {{ a = Exp(x) b = {node} y = Neg(b) }}"""
    assert ops_after(Neutral(), text) == ["Exp", "Neg"]


@pytest.mark.parametrize(
    ("node", "result"),
    [
        ("Add(a, zero)", "float[2,3]"),  # -0.0 + 0.0 is 0.0
        ("Sub(zero, a)", "float[2,3]"),
        ("Div(one, a)", "float[2,3]"),
        ("Mul(a, wide)", "float[2,2,3]"),
        ("Cast<to=11>(a)", "double[2,3]"),
        ("Transpose(a)", "float[3,2]"),
        ("Reshape(a, flat)", "float[6]"),
        ("Expand(a, twice)", "float[2,2,3]"),
        ("Slice(a, starts, ends)", "float[1,3]"),
        ("Relu(a)", "float[2,3]"),
    ],
)
def test_stays(node: str, result: str) -> None:
    text = f"""g (float[2,3] x) => ({result} y)
      <float one = {{1}}, float zero = {{0}}, float[2,1,1] wide = {{1, 1}}, int64[1] flat = {{-1}},
       int64[3] twice = {{2, 1, 1}},
       int64[1] starts = {{1}}, int64[1] ends = {{2}}>
      {{ a = Exp(x) b = {node} y = Neg(b) }}"""
    assert len(ops_after(Neutral(), text)) == 3


def test_relu_of_relu() -> None:
    assert ops_after(Neutral(), "g (float[2] x) => (float[2] y) { a = Relu(x) b = Relu(a) y = Neg(b) }") == [
        "Relu",
        "Neg",
    ]


def test_clips_of_other_limits_stay() -> None:
    text = """g (float[2] x) => (float[2] y) <float a = {0}, float b = {1}, float c = {2}>
      { d = Clip(x, a, b) y = Clip(d, a, c) }"""
    assert ops_after(Neutral(), text) == ["Clip", "Clip"]


def test_a_dropout_that_trains_stays() -> None:
    text = "g (float[2] x, bool t) => (float[2] y) <float r = {0.5}> { a = Dropout(x, r, t) y = Neg(a) }"
    inputs = {"x": np.ones(2, np.float32), "t": np.array(False)}
    assert ops_after(Neutral(), text, inputs=inputs) == ["Dropout", "Neg"]


def test_an_output_takes_the_name_of_the_value() -> None:
    assert ops_after(Neutral(), "g (float[2] x) => (float[2] y) { a = Exp(x) y = Identity(a) }") == ["Exp"]


def test_an_input_that_is_an_output_keeps_its_identity() -> None:
    assert ops_after(Neutral(), "g (float[2] x) => (float[2] y) { y = Identity(x) }") == ["Identity"]


def test_two_outputs_of_one_value() -> None:
    text = "g (float[2] x) => (float[2] y, float[2] z) { y = Exp(x) z = Identity(y) }"
    assert ops_after(Neutral(), text) == ["Exp", "Identity"]


def test_free_sizes() -> None:
    text = "g (float[n,3] x) => (float[n,3] y) <int64[2] s = {-1, 3}> { a = Exp(x) b = Reshape(a, s) y = Neg(b) }"
    assert ops_after(Neutral(), text) == ["Exp", "Neg"]
    text = "g (float[n,4] x) => (float[m,2] y) <int64[2] s = {-1, 2}> { a = Exp(x) b = Reshape(a, s) y = Neg(b) }"
    assert ops_after(Neutral(), text) == ["Exp", "Reshape", "Neg"]


def test_within_a_branch() -> None:
    text = """g (float[2] x, bool c) => (float[2] y) <float one = {1}> { a = Exp(x)
      y = If (c) <then_branch = t () => (float[2] r) { b = Mul(a, one) r = Neg(b) },
      else_branch = e () => (float[2] s) { s = Identity(a) }> }"""
    assert ops_after(Neutral(), text, inputs={"x": np.ones(2, np.float32), "c": np.array(True)}) == ["Exp", "If"]
