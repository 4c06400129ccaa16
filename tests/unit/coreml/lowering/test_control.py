"""Branches and loops that Core ML does not take are refused in ONNX's words."""

from pathlib import Path

import pytest

from support.graphs import model_of
from triune.core.errors import UnsupportedError
from triune.coreai.lowering import lower as lower_to_core_ai
from triune.coreml.lowering import lower

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
