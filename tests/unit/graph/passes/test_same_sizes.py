"""Differences of sizes that are always equal."""

from pathlib import Path

import numpy as np
import pytest

from support.graphs import model_of
from support.lowered import check
from triune.coreml.lowering import LowerOptions
from triune.graph.conversion.shapes import InputShape, Range
from triune.graph.normalize import normalize

WINDOWED = """g (float[1,t,8] x) => (float[1,t,8] y) {
n = Shape <start = 1, end = 2> (x) count = Squeeze (n)
none = Constant <value_int = 0> () one = Constant <value_int = 1> () places = Range (none, count, one)
axis = Constant <value_ints = [1]> () rows = Unsqueeze (places, axis) ages = Sub (rows, places)
window = Constant <value_int = 3> () near = Less (ages, window)
y = Attention <q_num_heads = 2, kv_num_heads = 2, is_causal = 1> (x, x, x, near) }"""


def test_masks_as_long_as_the_keys_are_not_padded(tmp_path: Path) -> None:
    model = model_of(WINDOWED, opset=24)
    normal = normalize(model)
    assert not any(node.op_type == "Sub" and "Padding" in node.output[0] for node in normal.graph.node)
    x = np.random.default_rng(0).standard_normal((1, 7, 8)).astype(np.float32)
    check(model, {"x": x}, tmp_path, LowerOptions(shapes={"x": InputShape(((1, Range(1, 16), 8),))}))


DIFFERENCE = """g (float[t,u] a, float[t] b) => (int64[k] d, int64 e) {
c = Abs (a) m = Shape <end = 1> (a) n = OTHER BETWEEN p = Cast <to = 7> (n1) d = Sub (m, p)
i = Squeeze (m) j = Squeeze (p) e = Sub (i, j) }"""


@pytest.mark.parametrize(
    ("other", "between", "is_equal"),
    [
        ("Shape <end = 1> (c)", "n1 = Cast <to = 6> (n)", True),
        ("Shape <start = 1> (a)", "n1 = Cast <to = 6> (n)", False),
        ("Shape <end = 1> (a)", "n1 = Cast <to = 9> (n)", False),
        ("Shape <end = 1> (a)", "n1 = Cast <to = 3> (n)", False),
        # Nothing refuses inputs whose sizes differ though they have one name.
        ("Shape (b)", "n1 = Cast <to = 6> (n)", False),
    ],
)
def test_sizes_of_one_origin_differ_by_zero(other: str, between: str, is_equal: bool) -> None:
    """A size that became a bool, or wrapped around in 8 bits, is no size any more."""
    normal = normalize(model_of(DIFFERENCE.replace("OTHER", other).replace("BETWEEN", between), opset=20))
    assert (not any(node.op_type == "Sub" for node in normal.graph.node)) is is_equal
    if is_equal:
        shapes = {each.name: tuple(each.dims) for each in normal.graph.initializer}
        assert (shapes["d"], shapes["e"]) == ((1,), ())


NEGATIVE = """g (float[t] a, float[u] b) => (int64[k] y) {
m = Shape (a) n = Shape (b) less = Sub (m, n) limit = Squeeze (less)
none = Constant <value_int = 0> () one = Constant <value_int = 1> () places = Range (none, limit, one)
length = Shape (places) y = Sub (length, less) }"""


def test_a_range_to_a_computed_limit_may_be_empty() -> None:
    normal = normalize(model_of(NEGATIVE, opset=20))
    assert sum(node.op_type == "Sub" for node in normal.graph.node) == 2


STACKED = """g (float[n,t,8] x, float[n,s,8] source) => (float[o,u,8] y) {
n = Shape <start = 1, end = 2> (x) count = Squeeze (n)
none = Constant <value_int = 0> () one = Constant <value_int = 1> () places = Range (none, count, one)
axis = Constant <value_ints = [1]> () rows = Unsqueeze (places, axis) ages = Sub (rows, places)
far = Constant <value_int = 2> () past = Max (ages, none) steps = Min (past, far)
table = Constant <value = float[2,3] {0.0, 0.5, 1.0, -1.0, 0.25, 2.0}> () biases = Gather <axis = 1> (table, steps)
front = Constant <value_ints = [0]> () near = Unsqueeze (biases, front)
first = Attention <q_num_heads = 2, kv_num_heads = 2, is_causal = 1> (x, x, x, near) a = Add (x, first)
crossed = Attention <q_num_heads = 2, kv_num_heads = 2> (a, source, source) b = Add (a, crossed)
y = Attention <q_num_heads = 2, kv_num_heads = 2, is_causal = 1> (b, b, b, near) }"""


def test_masks_of_later_layers_are_not_padded(tmp_path: Path) -> None:
    """What the first layer pads by 0 keeps the name of its size, which the layers after it have from it."""
    model = model_of(STACKED, opset=24)
    normal = normalize(model)
    assert not any(node.op_type == "Sub" and "Padding" in node.output[0] for node in normal.graph.node)
    random = np.random.default_rng(0)
    inputs = {name: random.standard_normal((1, size, 8)).astype(np.float32) for name, size in (("x", 7), ("source", 5))}
    shapes = {name: InputShape(((1, Range(1, 16), 8),)) for name in inputs}
    check(model, inputs, tmp_path, LowerOptions(shapes=shapes))
