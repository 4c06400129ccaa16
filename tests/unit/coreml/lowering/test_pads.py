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


MULTIPLES = """g (TYPE[1,n,m] x) => (TYPE[1,h,w] y) {
s = Shape <start = 1> (x) less = Neg (s) k = Constant <value_ints = [8]> () p = Mod (less, k)
none = Constant <value_ints = [0]> ()
begins = Constant <value_ints = [0, 2, 1]> () w = Concat <axis = 0> (begins, none, p)
y = Pad <mode = "MODE"> (x, w) }"""


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", ["float", "int64", "bool"])
@pytest.mark.parametrize("sizes", [(8, 5), (11, 9), (16, 15)])
@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
def test_computed_amounts_of_what_is_repeated(mode: str, sizes: tuple[int, int], kind: str, tmp_path: Path) -> None:
    """As before a network that takes multiples of 8; more rows are repeated before than after."""
    dtype = {"float": np.float32, "int64": np.int64, "bool": np.bool_}[kind]
    x = (np.random.default_rng(0).standard_normal((1, *sizes)) * 9).astype(dtype)
    options = LowerOptions(shapes={"x": InputShape(((1, Range(4, 16), Range(4, 16)),))})
    check(model_of(MULTIPLES.replace("TYPE", kind).replace("MODE", mode), opset=19), {"x": x}, tmp_path, options)


ONE_AXIS = """g (float[2,n,3] x, float[m,1] like) => (float[2,w,3] y) {
end = Shape <end = 1> (like) start = Shape <start = 1, end = 2> (x) more = Sub (end, start)
first = Constant <value_ints = [1]> () w = Concat <axis = 0> (first, more)
v = Constant <value_float = -inf> () axis = Constant <value_ints = [-2]> () y = Pad (x, w, v, axis) }"""


@pytest.mark.parametrize("longer", [0, 3])
def test_computed_amounts_along_one_axis(longer: int, tmp_path: Path) -> None:
    """ONNX's Attention pads its mask so up to the number of keys: only along the last axis."""
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    options = LowerOptions(shapes={"x": InputShape(((2, Range(1, 16), 3),)), "like": InputShape(((Range(1, 16), 1),))})
    check(model_of(ONE_AXIS, opset=18), {"x": x, "like": np.zeros((5 + longer, 1), np.float32)}, tmp_path, options)


@pytest.mark.parametrize(("pads", "length"), [((1, -1), 1), ((1, -1), 7), ((-2, 3), 3), ((-1, -1), 3), ((-1, -1), 7)])
def test_negative_amounts_in_a_free_size(pads: tuple[int, int], length: int, tmp_path: Path) -> None:
    """RWKV's shift in time: each token sees the one before it, the first one padding."""
    text = """g (float[1,t,4] x) => (float[1,u,4] y) <float v = {0.5}> {
        w = Constant <value_ints = [0, BEGIN, 0, 0, END, 0]> () y = Pad (x, w, v) }"""
    model = model_of(text.replace("BEGIN", str(pads[0])).replace("END", str(pads[1])), opset=18)
    options = LowerOptions(shapes={"x": InputShape(((1, Range(max(1, -sum(pads) + 1), 16), 4),))})
    x = np.random.default_rng(0).standard_normal((1, length, 4)).astype(np.float32)
    check(model, {"x": x}, tmp_path, options)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("value", ["constant", "computed"])
@pytest.mark.parametrize("kind", ["float", "int64", "bool"])
def test_free_sizes_are_padded_with_any_value(kind: str, value: str, tmp_path: Path) -> None:
    """As token ids, or a mask, up to whole blocks."""
    number = {"float": "value_float = 2.5", "int64": "value_int = 7", "bool": "value_int = 1"}[kind]
    filler = f"c = Constant <{number}> () v = Cast <to = {KINDS[kind][0]}> (c)"
    if value == "computed":
        filler = "m = ReduceMax <keepdims = 0> (f) v = Cast <to = TO> (m)".replace("TO", str(KINDS[kind][0]))
    text = f"""g ({kind}[n,m] x) => ({kind}[a,b] y) {{ f = Cast <to = 1> (x) {filler}
        w = Constant <value_ints = [1, 0, 2, 3]> () y = Pad (x, w, v) }}"""
    x = (np.random.default_rng(0).standard_normal((3, 5)) * 4).astype(KINDS[kind][1])
    options = LowerOptions(shapes={"x": InputShape(((Range(1, 16), Range(1, 16)),))})
    check(model_of(text, opset=18), {"x": x}, tmp_path, options)


KINDS = {"float": (1, np.float32), "int64": (7, np.int64), "bool": (9, np.bool_)}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
@pytest.mark.parametrize("kind", ["float", "int64", "bool"])
def test_known_amounts_repeat_elements_of_any_axis_of_free_size(kind: str, mode: str, tmp_path: Path) -> None:
    text = f"""g ({kind}[n,m,2,2] x) => ({kind}[a,b,2,2] y) {{
        w = Constant <value_ints = [2, 1, 0, 0, 1, 2, 0, 0]> () y = Pad <mode = "{mode}"> (x, w) }}"""
    x = (np.random.default_rng(0).standard_normal((3, 5, 2, 2)) * 4).astype(KINDS[kind][1])
    options = LowerOptions(shapes={"x": InputShape(((Range(3, 16), Range(3, 16), 2, 2),))})
    check(model_of(text, opset=19), {"x": x}, tmp_path, options)
