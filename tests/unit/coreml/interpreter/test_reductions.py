"""Reductions of no elements."""

from pathlib import Path

import numpy as np
import pytest

from support.graphs import model_of
from support.lowered import check

SELECT = "h = Constant <value_float = 0.5> () g = Greater (x, h) n = NonZero (g) t = Transpose (n) v = GatherND (x, t)"


@pytest.mark.parametrize("op", ["Max", "Min", "Mean", "Sum", "Prod", "LogSumExp", "L1"])
def test_no_elements_give_the_neutral_one(op: str, tmp_path: Path) -> None:
    text = f"g (float[2,2] x) => (float[1] y) {{ {SELECT} z = Constant <value_ints = [0]> () y = Reduce{op} (v, z) }}"
    check(model_of(text, opset=18), {"x": np.zeros((2, 2), np.float32)}, tmp_path)
