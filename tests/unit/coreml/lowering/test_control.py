"""Branches and loops of Core ML, and what it does not take, which is refused in ONNX's words."""

from pathlib import Path

import numpy as np
import pytest

from support.graphs import model_of
from support.lowered import check
from triune.core.errors import UnsupportedError
from triune.coreai.lowering import lower as lower_to_core_ai
from triune.coreml.lowering import LowerOptions, lower
from triune.graph.conversion.shapes import InputShape, Range

TRANSPOSED = "float[3,2] q) { q = Transpose (x) }"
SUM = "float q) { q = ReduceSum <keepdims = 0> (x) }"
ROW = "float[6] q) { s = Constant <value_ints = [-1]> () q = Reshape (x, s) }"
PICK = "[pick] y = If (c) <then_branch = a () => (float[2,3] p) { p = Relu (x) }, else_branch = b () => ("
LOOP = """[all] y = Loop (n, , x) <body = b (int64 i, bool c, v) => (bool d, w) {
  d = Identity (c) s = Constant <value_ints = [-1]> () w = Reshape (v, s) }>"""


def text_of(body: str) -> str:
    return f"agraph (int64 n, bool c, float[2,3] x) => (float[?,?] y) {{ {body} }}"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"{PICK}{TRANSPOSED}>", r"If 'pick': its branches give 'y' different shapes, \[2, 3\] and \[3, 2\]; Core ML"),
        (f"{PICK}{SUM}>", r"If 'pick': its branches give 'y' different shapes, \[2, 3\] and \[\]; Core ML needs"),
        (LOOP, r"Loop 'all': a step changes the shape of 'v' from \[2, 3\] to \[6\]; in Core ML's loops"),
    ],
)
def test_shapes_that_change_are_told_with_the_models_names(body: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        lower(model_of(text_of(body)), tmp_path / "m.mlpackage")


@pytest.mark.parametrize("body", [f"{PICK}{ROW}>", LOOP])
def test_core_ai_tells_ranks_in_words_too(body: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"different types or ranks: float32\[2, 3\] and float32\[6\]"):
        lower_to_core_ai(model_of(text_of(body)), tmp_path / "m.aimodel")


@pytest.mark.parametrize("steps", [20, 3])
def test_what_changes_because_the_step_changes_is_carried(steps: int, tmp_path: Path) -> None:
    """The flag is true as long as the number is small, which changes in each step; all are constant at the start."""
    text = f"""agraph (float[3] x) => (float[3] y) <int64 zero = {{0}}, bool yes = {{1}}, int64 one = {{1}},
            int64 most = {{ {steps - 1} }}> {{
        a, b, y = Loop (, yes, zero, yes, x) <body = g (int64 i, bool c, int64 n, bool f, float[3] v) => (bool d,
            int64 m, bool h, float[3] w) {{
            m = Add (n, one) d = Less (m, most) h = And (d, f) t = Tanh (v) w = Add (t, x) }}> }}"""
    check(model_of(text), {"x": np.float32([1, 2, 3])}, tmp_path)


@pytest.mark.parametrize("is_first", [True, False])
def test_branches_return_different_numbers_of_rows(is_first: bool, tmp_path: Path) -> None:
    """What follows computes with the rows that the If returns, not with those of its first branch."""
    text = """agraph (bool c, float[n,4] x) => (float[m,4] z, int64[2] s)
            <int64[1] one = {1}, int64[1] end = {1000}, int64[1] zero = {0}> {
        y = If (c) <then_branch = a () => (float[n,4] p) { p = Relu (x) }, else_branch = b () => (float[k,4] q) {
            q = Slice (x, one, end, zero) }>
        s = Shape (y) k = Expand (one, s) f = Cast <to = 1> (k) z = Add (f, y) }"""
    options = LowerOptions(shapes={"x": InputShape(((Range(1, 8), 4),))})
    x = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
    check(model_of(text), {"c": np.array(is_first), "x": x}, tmp_path, options)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("count", ["k = Identity (n)", "s = Shape <start = 1> (x) k = Sub (s, n)"])
def test_top_k_of_a_number_that_is_computed(count: str, largest: int, tmp_path: Path) -> None:
    text = f"""agraph (float[b,m] x, int64[1] n) => (float[b,k] v, int64[b,k] i) {{
        {count} v, i = TopK <largest = {largest}> (x, k) }}"""
    options = LowerOptions(shapes={"x": InputShape(((Range(1, 8), Range(2, 8)),))})
    given = {"x": np.float32([[3, 1, 1, 2, 0, 3], [1, 2, 3, 4, 5, 5]]), "n": np.array([3])}
    check(model_of(text), given, tmp_path, options)
