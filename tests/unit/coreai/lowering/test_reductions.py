"""Reductions of nothing, after calls that reduced something."""

from pathlib import Path

import numpy as np
import pytest

from support.graphs import model_of, ops_of
from support.lowered_coreai import check
from triune.graph.values import Values

ONES, NONE = np.ones((3, 3), np.float32), np.zeros((3, 3), np.float32)
PICKED = "m = Greater (x, half) i = NonZero (m) t = Transpose (i) v = GatherND (x, t)"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("s = ReduceSum <keepdims = 0> (v)", "float"),
        ("s = ReduceProd <keepdims = 0> (v)", "float"),
        ("s = ReduceMean <keepdims = 0> (v)", "float"),
        ("s = ReduceMax <keepdims = 0> (v)", "float"),
        ("s = ReduceMin <keepdims = 0> (v)", "float"),
        ("s = ReduceL1 <keepdims = 0> (v)", "float"),
        ("s = ReduceSumSquare <keepdims = 0> (v)", "float"),
        ("c = Cast <to = 7> (v) s = ReduceSum <keepdims = 0> (c)", "int64"),
        ("c = Cast <to = 6> (v) s = ReduceMax <keepdims = 0> (c)", "int32"),
    ],
)
def test_a_reduction_of_no_elements(body: str, kind: str, tmp_path: Path) -> None:
    model = model_of(f"agraph (float[n,3] x) => ({kind} s) <float half = {{0.5}}> {{ {PICKED} {body} }}", opset=18)
    check(model, tmp_path, *({"x": x} for x in (ONES, NONE, ONES, NONE)))


def test_the_sizes_of_inputs_are_not_0() -> None:
    model = model_of("agraph (float[n,3] x, float[2,k] y) => (float[n,j] s) { s = Identity (x) }")
    assert ops_of(model) == ["Identity"]
    values = Values(model.graph)
    assert [values.may_be_empty("x", axis) for axis in (0, 1)] == [False, False]
    assert [values.may_be_empty("s", axis) for axis in (0, 1)] == [False, True]
