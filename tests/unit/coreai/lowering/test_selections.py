"""What is computed of a selection that finds nothing."""

from pathlib import Path

import numpy as np
import pytest

from support.graphs import model_of
from support.lowered_coreai import check

SELECT = "h = Constant <value_float = 0.5> () g = Greater (x, h) n = NonZero (g) t = Transpose (n) v = GatherND (x, t)"
OF_ELEMENTS = [
    "k = Constant <value_float = 2.0> () w = Mul (v, k)",
    "k = Constant <value_floats = [2.0]> () w = Sub (k, v)",
    "w = Neg (v)",
    "w = Relu (v)",
    "k = Constant <value_float = 0.1> () w = Clip (v, k)",
    "k = Constant <value_float = 0.7> () b = Greater (v, k) w = Where (b, v, k)",
    "w = Concat <axis = 0> (v, v)",
]
SCATTERS = [
    "m = Neg (v) y = ScatterND (x, t, m)",
    'y = ScatterND <reduction = "add"> (x, t, v)',
    'm = Neg (v) y = ScatterND <reduction = "max"> (x, t, m)',
]
ROWS = """a = Constant <value_ints = [1]> () s = ReduceMax <keepdims = 0> (x, a) h = Constant <value_float = 0.5> ()
g = Greater (s, h) n = NonZero (g) t = Transpose (n) v = GatherND (x, t)"""

NONE, SOME = np.zeros((2, 2), np.float32), np.array([[0, 0.6], [0.9, 0]], np.float32)


@pytest.mark.parametrize("computed", OF_ELEMENTS)
def test_elementwise_operators(computed: str, tmp_path: Path) -> None:
    text = f"""g (float[2,2] x) => (float[1] y) {{
    {SELECT} {computed} z = Constant <value_ints = [0]> () y = ReduceSum (w, z) }}"""
    check(model_of(text, opset=18), tmp_path, {"x": NONE}, {"x": SOME}, {"x": NONE})


@pytest.mark.parametrize("scattered", SCATTERS)
def test_scatters_of_elements(scattered: str, tmp_path: Path) -> None:
    text = f"g (float[2,2] x) => (float[2,2] y) {{ {SELECT} {scattered} }}"
    check(model_of(text, opset=18), tmp_path, {"x": NONE}, {"x": SOME})


def test_a_scatter_of_rows(tmp_path: Path) -> None:
    text = f"g (float[2,2] x) => (float[2,2] y) {{ {ROWS} m = Neg (v) y = ScatterND (x, t, m) }}"
    check(model_of(text, opset=18), tmp_path, {"x": NONE}, {"x": SOME})


def test_a_scatter_along_an_axis(tmp_path: Path) -> None:
    text = """g (float[4] x) => (float[4] y) {
    h = Constant <value_float = 0.5> () g = Greater (x, h) n = NonZero (g) z = Constant <value_ints = [0]> ()
    t = Squeeze (n, z) v = Gather (x, t) m = Neg (v) y = ScatterElements (x, t, m) }"""
    check(model_of(text, opset=18), tmp_path, {"x": NONE.reshape(4)}, {"x": SOME.reshape(4)})
