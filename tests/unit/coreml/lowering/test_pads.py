"""Padding by amounts that are computed of sizes, as to whole windows."""

from pathlib import Path

import numpy as np
import pytest

from support.graphs import model_of
from support.lowered import check
from triune.coreml.lowering import LowerOptions
from triune.graph.conversion.shapes import InputShape, Range

WINDOWS = """g (float[1,n,4] x) => (float[a,5,4] y) {
i = Constant <value_int = 1> () s = Shape (x) c = Gather (s, i) five = Constant <value_int = 5> ()
r = Mod (c, five) d = Sub (five, r) p = Mod (d, five) u = Constant <value_ints = [0]> () q = Unsqueeze (p, u)
z = Constant <value_ints = [0]> () zs = Constant <value_ints = [0, 0, 0, 0]> ()
w = Concat <axis = 0> (zs, q, z) v = Constant <value_float = 0.5> () padded = Pad (x, w, v)
sh = Constant <value_ints = [-1, 5, 4]> () y = Reshape (padded, sh) }"""


@pytest.mark.parametrize("length", [5, 12])
def test_amounts_that_are_computed(length: int, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, length, 4)).astype(np.float32)
    options = LowerOptions(shapes={"x": InputShape(((1, Range(1, 16), 4),))})
    check(model_of(WINDOWS, opset=18), {"x": x}, tmp_path, options)
