"""Numbers of inputs for which sums cancel, and how far what follows is off there in fp16."""

import numpy as np
import pytest
from onnx.shape_inference import infer_shapes

from support.graphs import model_of
from triune.graph.cancellation import Curve, cancelling_curves
from triune.graph.values import Values

_ROUNDING = 2.0**-11


def _curves(text: str) -> dict[str, Curve]:
    model = infer_shapes(model_of(text))
    return cancelling_curves(model.graph, Values(model.graph), model.opset_import[0].version)


@pytest.mark.parametrize(
    ("nodes", "zero", "lost"),
    [
        ("t = Sub (x, c) y = Mul (t, k)", 50, 50 * 1000),
        ("s = Mul (x, k) t = Sub (s, c) y = Mul (t, k)", 0.05, 2 * 50 * 1000),
        ("s = Log (x) t = Sub (s, c) y = Neg (t)", np.exp(50), None),
        ("s = Log (x) t = Sub (s, two) y = Mul (t, k)", np.exp(2), (1 + 2) * 1000),
        ("s = Sqrt (x) t = Sub (s, two) y = Mul (t, k)", 4, (1 + 2) * 1000),
        ("s = Reciprocal (x) t = Sub (two, s) y = Mul (t, k)", 0.5, (2 + 2) * 1000),
        ("s = Neg (x) t = Add (s, c) y = Div (t, k)", 50, 2 * 50 / 1000),
        ("s = Mul (x, x) h = Mul (x, two) t = Sub (s, h) y = Mul (t, k)", 2, (8 + 4 + 4 + 4) * 1000),
    ],
)
def test_the_error_where_a_sum_cancels(nodes: str, zero: float, lost: float | None) -> None:
    found = _curves(
        f"g (float[3] x) => (float[3] y) <float c = {{50}}, float two = {{2}}, float k = {{1000}}> {{ {nodes} }}"
    )
    if lost is None:
        # Beyond the numbers that are tried.
        assert found == {}
        return
    crossed = found["t"].crossed
    assert crossed is not None
    assert crossed.reshape(-1) == pytest.approx(zero, rel=1e-5)
    assert found["y"].lost == pytest.approx(lost * _ROUNDING, rel=0.2)


def test_nothing_cancels_where_the_signs_are_equal_or_the_number_is_0() -> None:
    text = """g (float[3] x) => (float[3] y) <float c = {50}, float zero = {0}> {
        p = Abs (x) t = Add (p, c) u = Sub (x, zero) e = Exp (x) v = Add (e, c) a = Add (t, u) y = Add (a, v) }"""
    assert _curves(text) == {}


def test_each_element_has_its_number_wherever_it_is_moved() -> None:
    text = """g (float[3,2] x) => (float[2,3] y) <float[2,1] c = {52, 13}> {
        t = Transpose <perm = [1, 0]> (x) y = Sub (t, c) }"""
    found = _curves(text)["y"]
    assert found.places is not None
    assert found.places.tolist() == [[0, 2, 4], [1, 3, 5]]
    assert found.crossed is not None
    assert np.broadcast_to(found.crossed, (2, 3))[:, 0].tolist() == pytest.approx([52, 13])


def test_elements_that_are_not_the_same_are_no_function_of_one() -> None:
    text = """g (float[4] x, float[4] z) => (float[2] y, float[4] w)
      <int64[1] a = {0}, int64[1] b = {2}, int64[1] c = {4}> {
        one = Slice (x, a, b) other = Slice (x, b, c) y = Sub (one, other) w = Sub (x, z) }"""
    assert _curves(text) == {}


def test_sizes_that_are_free_are_followed_where_all_elements_are_one_function() -> None:
    text = """g (float[N,2] x) => (float[M] y) <int64[1] all = {-1}, float c = {50}, float k = {1000}> {
        r = Reshape (x, all) t = Sub (r, c) y = Mul (t, k) }"""
    assert _curves(text)["y"].lost == pytest.approx(50_000 * _ROUNDING, rel=0.2)


def test_integers_are_not_rounded_before_they_are_cast() -> None:
    text = """g (int32[4] x) => (float[4] y) <int32 c = {3001}> { t = Sub (x, c) f = Cast <to = 1> (t) y = Neg (f) }"""
    assert _curves(text)["y"].lost < 1e-3
