"""Conditions, counts and carried values of shape [1] where ONNX has scalars, and branches of different ranks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from support.graphs import model_of
from support.lowered import check as check_core_ml
from support.lowered_coreai import check as check_core_ai

BRANCHES = model_of(
    """agraph (float[2] x) => (float[?] y) <float[1] z = {0}> {
      r = ReduceMax (x)  c = Greater (r, z)
      w = If (c) <then_branch = a () => (float p) { p = Constant <value_float = 1.0> () },
                  else_branch = b () => (float[1] q) { q = ReduceSum (x) }>
      y = Mul (x, w) }"""
)
STEPS = model_of(
    """agraph (float[2] x, bool[1] c, int64[1] n) => (float[?] y, float[?] t) <float s = {0}, float[2] one = {1, 1}> {
      y, t = Loop (n, c, x, s) <body = b (int64 i, bool[1] going, float[2] a, float[] u)
        => (bool[1] on, float[2] b, float[1] v) <float[1] most = {20}, float[1] two = {2}> {
          b = Add (a, one)  m = ReduceMax (b)  on = Less (m, most)  v = Add (u, two) }> }"""
)
# As tf2onnx writes tf.image.crop_and_resize.
ROWS = model_of(
    """agraph (float[3,2] x, int64 n) => (float[?,2] y)
        <bool c = {1}, int64[3] order = {2, 0, 1}, int64[1] zero = {0}> {
      y = Loop (n, c) <body = b (int64[1] i, bool going) => (bool on, float[2] row)
        <int64[1] one = {1}> {
          next = Add (i, one)  place = Slice (order, i, next)  end = Add (place, one)
          on = Identity (going)  found = Slice (x, place, end, zero)  row = Squeeze (found, zero) }> }"""
)
X = np.array([1, 2], np.float32)
CALLS: Mapping[str, tuple[ModelProto, list[Any]]] = {
    "branches": (BRANCHES, [{"x": X}, {"x": -X}]),
    "steps": (
        STEPS,
        [
            {"x": X, "c": np.array([True]), "n": np.array([50])},
            {"x": X, "c": np.array([True]), "n": np.array([3])},
        ],
    ),
    "rows": (ROWS, [{"x": np.arange(6, dtype=np.float32).reshape(3, 2), "n": np.array(count)} for count in (3, 2)]),
}


@pytest.mark.parametrize("name", CALLS)
def test_core_ml_takes_them_for_scalars(name: str, tmp_path: Path) -> None:
    model, calls = CALLS[name]
    for feeds in calls:
        check_core_ml(model, feeds, tmp_path)


@pytest.mark.parametrize("name", CALLS)
def test_core_ai_takes_them_for_scalars(name: str, tmp_path: Path) -> None:
    model, calls = CALLS[name]
    check_core_ai(model, tmp_path, *calls)
