"""Draws of random numbers without a spread, or with one the wrong way round."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import triune
from support.graphs import model_of
from triune.graph.session import GraphSession

X = np.zeros((2, 3), np.float32)
DRAWS = [
    ("RandomNormal <shape = [2, 3], scale = 0.0, mean = 2.0> ()", 2),
    ("RandomNormal <shape = [2, 3], scale = 0.0> ()", 0),
    ("RandomNormalLike <scale = 0.0, mean = 2.0> (x)", 2),
    ("RandomUniform <shape = [2, 3], low = 3.0, high = 3.0> ()", 3),
    ("RandomUniformLike <low = 1.0> (x)", 1),
]


def drawn(draw: str) -> onnx.ModelProto:
    return model_of(f"g (float[n,3] x) => (float[2,3] y) {{ z = {draw} y = Add (x, z) }}", opset=20)


@pytest.mark.parametrize(("draw", "value"), DRAWS)
def test_draws_without_spread_are_one_number(draw: str, value: float) -> None:
    """ONNX Runtime ends the process for a normal distribution without spread."""
    found, _ = GraphSession(drawn(draw), "m").run({"x": X}, {})
    np.testing.assert_array_equal(found["y"], np.full((2, 3), value))


@pytest.mark.parametrize("target", ["m.mlpackage", "m.aimodel"])
@pytest.mark.parametrize(("draw", "value"), DRAWS)
def test_they_become_constants(draw: str, value: float, target: str, tmp_path: Path) -> None:
    onnx.save(drawn(draw), tmp_path / "m.onnx")
    triune.convert(tmp_path / "m.onnx", tmp_path / target, shapes={"x": (2, 3)}, verify=True)
    np.testing.assert_array_equal(triune.predict(tmp_path / target, {"x": X}, "cpu")["y"], np.full((2, 3), value))


@pytest.mark.parametrize(
    ("draw", "low", "high"),
    [
        ("RandomUniform <shape = [2, 3], low = 5.0, high = 4.0> ()", 4, 5),
        ("RandomUniformLike <high = -1.0> (x)", -1, 0),
        ("RandomNormal <shape = [2, 3], scale = -0.5> ()", -5, 5),
    ],
)
def test_limits_and_scales_the_wrong_way_round(draw: str, low: float, high: float) -> None:
    found = GraphSession(drawn(draw), "m").run({"x": X}, {})[0]["y"]
    assert ((low <= found) & (found <= high)).all()
    assert np.unique(found).size > 1


def test_functions_and_branches_have_them_too() -> None:
    text = """g (float[2,3] x, bool c) => (float[2,3] y) {
    y = If (c) <then_branch = a () => (float[2,3] t) { t = RandomNormalLike <scale = 0.0, mean = 4.0> (x) },
                else_branch = b () => (float[2,3] e) { e = Identity (x) }> }"""
    found, _ = GraphSession(model_of(text, opset=20), "m").run({"x": X, "c": np.array(True)}, {})
    np.testing.assert_array_equal(found["y"], np.full((2, 3), 4))
