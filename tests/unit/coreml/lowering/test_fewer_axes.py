"""Values of more axes than Core ML has: adaptive pools, PixelUnshuffle and Unfold as PyTorch writes them, and each
operator on six and seven axes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, helper

from support.graphs import model_of as parsed
from support.lowered import FLOAT, check, model_of, plain_answers
from triune.core.errors import UnsupportedError
from triune.coreml.lowering import LowerOptions, lower
from triune.coreml.lowering.deep.fewer_axes import FewerAxes
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import InputShape, Range
from triune.graph.passes.infer import Infer
from triune.graph.values import Values

ROWS = np.array([[0, 1, 2, 3], [3, 4, 5, 6]])
COLUMNS = np.array([[0, 1, 2], [2, 3, 4], [4, 5, 5]])
INDICES = np.stack(np.broadcast_arrays(ROWS[:, :, None, None], COLUMNS[None, None]), -1)
MASK = np.array([[False, False, False], [False, False, False], [False, False, True]])

GATHERED = [
    helper.make_node("Transpose", ["x"], ["t"], perm=[2, 3, 0, 1]),
    helper.make_node("GatherND", ["t", "indices"], ["g"]),
    helper.make_node("Transpose", ["g"], ["w"], perm=[4, 5, 0, 1, 2, 3]),
]
POOLS = {
    "a mean": [helper.make_node("ReduceMean", ["w", "axes"], ["y"], keepdims=0)],
    "a mean of some": [
        helper.make_node("Where", ["mask", "zero", "w"], ["m"]),
        helper.make_node("ReduceSum", ["m", "axes"], ["s"], keepdims=0),
        helper.make_node("Div", ["s", "counts"], ["y"]),
    ],
    "a mean in steps": [
        helper.make_node("ReduceMax", ["w", "first"], ["m"], keepdims=1),
        helper.make_node("Mul", ["m", "one"], ["o"]),
        helper.make_node("ReduceSum", ["o", "axes"], ["y"], keepdims=0),
    ],
    "elements one by one": [
        helper.make_node("Gather", ["w", "k"], ["a"], axis=3),
        helper.make_node("Gather", ["a", "k"], ["b"], axis=-1),
        helper.make_node("Gather", ["w", "j"], ["c"], axis=-3),
        helper.make_node("Gather", ["c", "j"], ["d"], axis=4),
        helper.make_node("Add", ["b", "d"], ["y"]),
    ],
}
CONSTANTS = {
    "indices": INDICES,
    "axes": np.array([-3, -1]),
    "first": np.array([3]),
    "mask": MASK,
    "zero": np.float32(0),
    "one": np.full((1, 1, 1, 1, 1, 1), 2, np.float32),
    "counts": np.array([12, 12, 8], np.float32),
    "k": np.array(2),
    "j": np.array(0),
}


@pytest.mark.parametrize("pool", POOLS)
def test_adaptive_pools(pool: str, tmp_path: Path) -> None:
    model = model_of([*GATHERED, *POOLS[pool]], [("x", FLOAT, [2, 3, 7, 6])], [("y", FLOAT, [2, 3, 2, 3])], **CONSTANTS)
    check(model, {"x": np.random.default_rng(0).standard_normal((2, 3, 7, 6)).astype(np.float32)}, tmp_path)


def random(shape: Sequence[int]) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def node(op_type: str, *inputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, inputs, ["r"], **attributes)


DEEP = (2, 3, 1, 2, 3, 4)
CASES: dict[str, tuple[NodeProto, Sequence[int], dict[str, Any]]] = {
    "transpose, some axes stay together": (node("Transpose", "d", perm=[3, 4, 5, 2, 0, 1]), DEEP, {}),
    "transpose of all": (node("Transpose", "d", perm=[5, 4, 3, 2, 1, 0]), DEEP, {}),
    "transpose of six": (node("Transpose", "d", perm=[5, 2, 0, 4, 1, 3]), (2, 3, 2, 2, 3, 4), {}),
    "transpose of seven": (node("Transpose", "d"), (2, 3, 2, 2, 3, 2, 2), {}),
    "transpose of ones": (node("Transpose", "d"), (1, 1, 1, 1, 1, 1), {}),
    "squeeze": (node("Squeeze", "d", "k"), DEEP, {"k": np.array([2])}),
    "unsqueeze": (node("Unsqueeze", "d", "k"), DEEP, {"k": np.array([0, -1])}),
    "a number": (node("Mul", "d", "k"), DEEP, {"k": np.float32(3)}),
    "a vector": (node("Add", "k", "d"), DEEP, {"k": random((4,))}),
    "broadcast both ways": (node("Sub", "d", "k"), (1, 3, 1, 2, 3, 4), {"k": random((2, 1, 3, 1, 1, 1))}),
    "a constant of six axes": (node("Div", "d", "k"), DEEP, {"k": random((2, 3, 1, 1, 1, 4)) + 9}),
    "itself": (node("Mul", "d", "d"), DEEP, {}),
    "a mask": (node("Where", "k", "d", "z"), DEEP, {"k": random((3, 1)) > 0, "z": np.float32(-1)}),
    "limits": (node("Clip", "d", "k", ""), DEEP, {"k": np.float32(0)}),
    "expand": (node("Expand", "d", "k"), DEEP, {"k": np.array([2, 1, 5, 1, 1, 4])}),
    "mean of some": (node("ReduceMean", "d", "k", keepdims=0), DEEP, {"k": np.array([-3, 0, 2])}),
    "sum of some, kept": (node("ReduceSum", "d", "k"), DEEP, {"k": np.array([1, 5])}),
    "maximum of all": (node("ReduceMax", "d", keepdims=0), DEEP, {}),
    "product of one that is 1": (node("ReduceProd", "d", "k"), DEEP, {"k": np.array([2])}),
    "softmax": (node("Softmax", "d", axis=1), DEEP, {}),
    "running sum": (node("CumSum", "d", "k", reverse=1), DEEP, {"k": np.array(-2)}),
    "gather": (node("Gather", "d", "k", axis=1), DEEP, {"k": np.array([[0, 2], [1, 1]])}),
    "gather one": (node("Gather", "d", "k", axis=-1), DEEP, {"k": np.array(-2)}),
    "slice": (
        node("Slice", "d", "a", "b", "c", "s"),
        DEEP,
        {"a": np.array([1, -1]), "b": np.array([9, -9]), "c": np.array([1, -1]), "s": np.array([1, -2])},
    ),
    "concat": (node("Concat", "d", "k", "d", axis=2), DEEP, {"k": random(DEEP)}),
    "product with a matrix": (node("MatMul", "d", "k"), DEEP, {"k": random((4, 5))}),
    "products": (node("MatMul", "d", "k"), DEEP, {"k": random((2, 3, 1, 2, 4, 5))}),
    "products, broadcast": (node("MatMul", "k", "d"), (2, 1, 2, 2, 3, 4), {"k": random((3, 2, 2, 5, 3))}),
}


def case(name: str, free: str | int | None = None) -> tuple[ModelProto, Any]:
    made, shape, constants = CASES[name]
    shape = list(shape)
    whole = list(shape) if free is None else [-1, *shape[1:]]
    nodes = [
        helper.make_node("Reshape", ["x", "whole"], ["d"]),
        made,
        helper.make_node("Abs", ["r"], ["p"]),
        helper.make_node("Reshape", ["p", "flat"], ["y"]),
    ]
    given = [free or shape[0], int(np.prod(shape[1:]))]
    model = model_of(
        nodes, [("x", FLOAT, given)], [("y", FLOAT, ["n"])], whole=np.array(whole), flat=np.array([-1]), **constants
    )
    return Infer()(model), random([shape[0], given[1]])


@pytest.mark.parametrize("name", CASES)
def test_each_operator_with_fewer_axes_computes_the_same(name: str) -> None:
    model, x = case(name)
    (expected,) = plain_answers(model, {"x": x})
    fewer = FewerAxes()(model)
    values = Values(fewer.graph)
    assert all(len(values.shape(each) or ()) <= 5 for node in fewer.graph.node for each in (*node.input, *node.output))
    np.testing.assert_allclose(plain_answers(fewer, {"x": x})[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["transpose, some axes stay together", "a number", "a vector", "mean of some", "gather", "softmax"]
)
def test_one_size_may_be_free(name: str) -> None:
    model, x = case(name, free="batch")
    (expected,) = plain_answers(model, {"x": x})
    fewer = FewerAxes()(model)
    values = Values(fewer.graph)
    assert all(len(values.shape(each) or ()) <= 5 for node in fewer.graph.node for each in (*node.input, *node.output))
    np.testing.assert_allclose(plain_answers(fewer, {"x": x})[0], expected, rtol=1e-6)


def test_new_values_compute_in_fp32_where_theirs_do() -> None:
    model, _ = case("sum of some, kept")
    fewer = FewerAxes({"r"})
    changed = fewer(model)
    made = {each.output[0] for each in changed.graph.node} - {"d", "r", "p", "y"}
    assert made == fewer.wide
    assert made


UNSHUFFLED = [
    helper.make_node("Unsqueeze", ["x", "three"], ["a"]),
    helper.make_node("Reshape", ["a", "rows"], ["b"]),
    helper.make_node("Reshape", ["b", "columns"], ["c"]),
    helper.make_node("Transpose", ["c"], ["t"], perm=[0, 1, 3, 5, 2, 4]),
    helper.make_node("Reshape", ["t", "channels"], ["d"]),
    helper.make_node("Squeeze", ["d", "ones"], ["y"]),
]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_pixel_unshuffle_of_a_size_that_the_exporter_did_not_know(precision: Precision, tmp_path: Path) -> None:
    """As behind `padding_mode="reflect"`, whose pads PyTorch computes."""
    model = model_of(
        UNSHUFFLED,
        [("x", FLOAT, [1, 3, 4, 6])],
        [("y", FLOAT, ["n", "c", "h", "w"])],
        three=np.array([3]),
        rows=np.array([0, 0, -1, 2, 0]),
        columns=np.array([0, 0, 0, 0, -1, 2]),
        channels=np.array([0, -1, 1, 1, 0, 0]),
        ones=np.array([2, 3]),
    )
    atol = 1e-5 if precision is Precision.FP32 else 2e-3
    check(model, {"x": random((1, 3, 4, 6))}, tmp_path, LowerOptions(precision=precision), atol=atol)


def test_unfold(tmp_path: Path) -> None:
    """nn.Unfold: elements are gathered along rows, then along columns."""
    nodes = [
        helper.make_node("Gather", ["x", "rows"], ["a"], axis=2),
        helper.make_node("Gather", ["a", "columns"], ["b"], axis=4),
        helper.make_node("Transpose", ["b"], ["t"], perm=[0, 1, 2, 4, 3, 5]),
        helper.make_node("Reshape", ["t", "whole"], ["y"]),
    ]
    model = model_of(
        nodes,
        [("x", FLOAT, [1, 3, 5, 6])],
        [("y", FLOAT, [1, 18, 12])],
        rows=np.array([[0, 1, 2], [2, 3, 4], [1, 2, 3]]),
        columns=np.array([[0, 1, 2, 3], [2, 3, 4, 5]]),
        whole=np.array([1, 18, -1]),
    )
    check(model, {"x": random((1, 3, 5, 6))}, tmp_path)


def test_outputs_of_six_axes_are_refused(tmp_path: Path) -> None:
    nodes = [*GATHERED[:2], helper.make_node("ReduceMax", ["g", "last"], ["y"], keepdims=1)]
    model = model_of(
        nodes, [("x", FLOAT, [2, 3, 7, 6])], [("y", FLOAT, [2, 4, 3, 3, 2, 1])], last=np.array([5]), indices=INDICES
    )
    with pytest.raises(UnsupportedError, match="limit is rank 5"):
        lower(model, tmp_path / "m.mlpackage")


WINDOWS = """g (float[b,6,6,4] x) => (float[b,6,6,4] y) <int64[4] flat = {-1, 3, 3, 4}, int64[1] c = {4}> {
    b = Shape <end = 1> (x) two = Constant <value_ints = [2]> () three = Constant <value_ints = [3]> ()
    s = Concat <axis = 0> (b, two, three, two, three, c) r = Reshape (x, s)
    t = Transpose <perm = [0, 1, 3, 2, 4, 5]> (r) w = Reshape (t, flat) a = Relu (w)
    n = Shape <end = 1> (a) four = Mul (two, two) m = Div (n, four) rest = Constant <value_ints = [-1]> ()
    u = Concat <axis = 0> (m, two, two, three, three, rest) v = Reshape (a, u)
    q = Transpose <perm = [0, 1, 3, 2, 4, 5]> (v) six = Constant <value_ints = [6]> ()
    z = Concat <axis = 0> (m, six, six, rest) y = Reshape (q, z) }"""


@pytest.mark.parametrize("batch", [1, 3])
def test_windows_of_a_free_batch(batch: int, tmp_path: Path) -> None:
    """Exporters compute each size of the windows; all except the batch are known by the sizes' names."""
    options = LowerOptions(shapes={"x": InputShape(((Range(1, 4), 6, 6, 4),))})
    check(parsed(WINDOWS, opset=18), {"x": random((batch, 6, 6, 4))}, tmp_path, options)


@pytest.mark.parametrize("free", [False, True])
def test_parts_of_six_axes(free: bool, tmp_path: Path) -> None:
    """Hiera's queries, keys and values."""
    text = """g (float[b,48] x) => (float[b,4,1,2] y)
        <int64[6] s = {-1, 1, 3, 2, 4, 2}, int64[2] k = {1, 2}, int64 one = {1}, int64[1] o = {0}, int64[1] i = {1}> {
        d = Reshape (x, s) t = Transpose <perm = [2, 0, 3, 1, 4, 5]> (d) p = Abs (t)
        q, e = Split <axis = 0> (p, k) f = Gather <axis = 0> (e, one) h = Squeeze (q, o)
        g = ReduceMax <keepdims = 0> (h, i) j = ReduceMin <keepdims = 0> (f, i) m = Mul (g, j)
        y = Transpose <perm = [0, 2, 1, 3]> (m) }"""
    size = Range(1, 4) if free else 3
    options = LowerOptions(shapes={"x": InputShape(((size, 48),))})
    check(parsed(text, opset=18), {"x": random((3, 48))}, tmp_path, options)


UNFOLDED = """g (float[b,6,4] x) => (float[m,12,v] y)
    <int64[1] rest = {-1}, int64[1] c = {4}, int64[1] last = {3}, int64[8] pads = {0, 0, 1, 0, 0, 0, 1, 0},
     int64[3,1] window = {0, 1, 2}, int64[1,1] one = {0}, int64 none = {0}, int64 step = {1}, int64[1] o = {0},
     int64[1] twelve = {12},
     float[4,4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}> {
    a = Concat <axis = 0> (x, x) b = Shape <end = 1> (a) s = Concat <axis = 0> (b, rest, c)
    h = MatMul (a, w) r = Reshape (h, s)
    t = Transpose <perm = [0, 2, 1]> (r) v = Unsqueeze (t, last) p = Pad (v, pads)
    n = Shape <start = 2, end = 3> (v) count = Squeeze (n)
    more = Add (count, step) same = Sub (more, step) line = Range (none, same, step)
    row = Unsqueeze (line, o) places = Add (row, window)
    d = Gather <axis = 2> (p, places) e = Gather <axis = 4> (d, one)
    f = Transpose <perm = [0, 1, 2, 4, 3, 5]> (e)
    z = Concat <axis = 0> (b, twelve, rest) y = Reshape (f, z) }"""


@pytest.mark.parametrize("batch", [1, 3])
def test_unfold_of_a_free_batch(batch: int, tmp_path: Path) -> None:
    """ConvBERT's: the number of tokens follows from a Reshape to [batch, -1, 4], and the places from that number."""
    options = LowerOptions(shapes={"x": InputShape(((Range(1, 4), 6, 4),))})
    check(parsed(UNFOLDED, opset=18), {"x": random((batch, 6, 4))}, tmp_path, options)


@pytest.mark.parametrize("batch", [1, 3])
def test_two_operands_of_one_free_size(batch: int, tmp_path: Path) -> None:
    """Deformable attention, as RT-DETR has it: places of six axes are scaled by boxes that were tiled and gathered."""
    text = """g (float[b,6,48] x) => (float[b,6,48] y)
      <int64[5] rest = {6, 4, 3, 2, 2}, int64[1] last = {2}, int64[1] k = {3}, int64[3] times = {1, 1, 2},
       int64[3] axes = {2, 3, 4}, int64[3] flat = {-1, 6, 48}> {
        s = Shape <start = 0, end = 1> (x) form = Concat <axis = 0> (s, rest) w = Reshape (x, form)
        v, i = TopK <axis = 1> (x, k) m = ReduceMax (v, last) j = ReduceMin (i, last)
        more = Concat <axis = 1> (j, j) t = Tile (more, times) g = GatherElements <axis = 1> (x, t)
        u = Unsqueeze (g, axes) p = Mul (w, u) o = Add (p, u) y = Reshape (o, flat) }"""
    x = np.random.default_rng(0).standard_normal((batch, 6, 48)).astype(np.float32)
    check(parsed(text, opset=18), {"x": x}, tmp_path, LowerOptions(shapes={"x": InputShape(((Range(1, 4), 6, 48),))}))
