"""Each pass by itself: given -> result."""

from collections import Counter

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from support.graphs import model_of, ops_of
from triune.graph.ane.borders import Borders
from triune.graph.ane.cancel import Cancel
from triune.graph.ane.channel_norm import ChannelNorm
from triune.graph.ane.layout_pass import LayoutPass
from triune.graph.ane.linear_to_conv import LinearToConv
from triune.graph.ane.nan_guards import NanGuards
from triune.graph.ane.report import Report
from triune.graph.ane.rope import Rope
from triune.graph.ane.split_heads import SplitHeads
from triune.graph.ane.without_reshapes import WithoutReshapes
from triune.graph.check import Arrays, compare, evaluate, sample_inputs
from triune.graph.index import Index
from triune.graph.match.channels import Channels, read_heads, trace
from triune.graph.normalize import normalize
from triune.graph.passes.infer import Infer
from triune.graph.passes.tidy import Tidy


def after(step: type[LayoutPass], text: str, inputs: Arrays | None = None) -> tuple[list[str], Report]:
    """The operators after the pass, which is held to the answers before it."""
    model = normalize(model_of(text))
    inputs = inputs or sample_inputs(model)
    expected = evaluate(model, inputs)
    report = Report()
    result = Infer()(Tidy()(step(report)(model)))
    compare(step.name, expected, result, inputs)
    return ops_of(result), report


# Linear layers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<float[2,3] w = {1,2,3,4,5,6}> { y = MatMul (x, w) }", {"Conv": 1}),
        ("<float[2,3] w = {1,2,3,4,5,6}, float[3] b = {1,2,3}> { z = MatMul (x, w)  y = Add (b, z) }", {"Conv": 1}),
        # A bias for each step is no bias of a convolution.
        (
            "<float[2,3] w = {1,2,3,4,5,6}, float[5,1] b = {1,2,3,4,5}> { z = MatMul (x, w)  y = Add (z, b) }",
            {"Conv": 1, "Add": 1},
        ),
        (
            "<int8[2,3] q = {1,2,3,4,5,6}, float[3] s = {0.5,1,2}> { w = DequantizeLinear (q, s)  y = MatMul (x, w) }",
            {"Conv": 1, "DequantizeLinear": 1},
        ),
    ],
)
def test_products_of_sequences_are_convolutions(text: str, expected: dict[str, int]) -> None:
    ops, report = after(LinearToConv, f"agraph (float[N,5,2] x) => (float[N,5,3] y) {text}")
    counts = Counter(ops)
    assert {name: counts[name] for name in ("Conv", "Add", "DequantizeLinear") if counts[name]} == expected
    assert counts["MatMul"] == 0
    assert report.counts() == {"linear_to_conv": 1}


def test_gemm_of_rows_is_a_convolution_with_its_factors() -> None:
    text = """agraph (float[N,S,2] x) => (float[M,3] y)
      <float[3,2] w = {1,2,3,4,5,6}, float[3] b = {1,2,3}, int64[2] r = {-1,2}> {
        z = Reshape (x, r)  y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (z, w, b) }"""
    ops, _ = after(LinearToConv, text)
    assert Counter(ops)["Conv"] == 1
    assert "Gemm" not in ops


@pytest.mark.parametrize(
    ("signature", "body", "reason"),
    [
        ("(float[N,2] x) => (float[N,3] y)", "y = MatMul (x, w)", "has no sequence"),
        ("(float[N,4,5,2] x) => (float[N,4,5,3] y)", "y = MatMul (x, w)", "an operand of rank 4 has no layout"),
        ("(float[2,N] x) => (float[N,3] y)", "y = Gemm <transA = 1> (x, w)", "its first operand is transposed"),
        ("(float[N,2] x, float[3] b) => (float[N,3] y)", "y = Gemm (x, w, b)", "has no sequence"),
    ],
)
def test_other_products_stay(signature: str, body: str, reason: str) -> None:
    ops, report = after(LinearToConv, f"agraph {signature} <float[2,3] w = {{1,2,3,4,5,6}}> {{ {body} }}")
    assert "Conv" not in ops
    assert reason in report.left[0].text


def test_too_many_channels_stay() -> None:
    model = model_of("agraph (float[1,N,1] x, float[1,65537] w) => (float[1,N,65537] y) { y = MatMul (x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 65537), np.float32), "w"))
    del model.graph.input[1]
    report = Report()
    assert ops_of(LinearToConv(report)(normalize(model))) == ["MatMul"]
    assert report.left[0].text == "65537 channels; the Neural Engine has at most 65536"


def test_products_of_two_inputs_are_no_linear_layers() -> None:
    ops, report = after(
        LinearToConv, "agraph (float[N,5,2] x, float[N,2,3] w) => (float[N,5,3] y) { y = MatMul (x, w) }"
    )
    assert ops == ["MatMul"]
    assert report.left == []


# Softmax


def test_a_flattened_softmax_is_a_softmax() -> None:
    text = """agraph (float[N,3,4] x) => (float[N,3,4] y) <int64[2] r = {-1, 4}> {
      s = Shape (x)  z = Reshape (x, r)  w = Softmax (z)  y = Reshape (w, s) }"""
    assert after(WithoutReshapes, text)[0] == ["Softmax"]


def test_a_softmax_over_several_axes_stays() -> None:
    text = """agraph (float[2,3,4] x) => (float[2,3,4] y) <int64[2] r = {2, 12}, int64[3] b = {2, 3, 4}> {
      z = Reshape (x, r)  w = Softmax (z)  y = Reshape (w, b) }"""
    assert after(WithoutReshapes, text)[0] == ["Reshape", "Softmax", "Reshape"]


# Cancelling


@pytest.mark.parametrize(
    ("signature", "body", "expected"),
    [
        (
            "(float[A,B,C] x) => (float[A,B,C] y)",
            "a = Transpose <perm = [0,2,1]> (x)  b = Transpose <perm = [0,2,1]> (a)  y = Relu (b)",
            ["Relu"],
        ),
        (
            "(float[A,B,C] x) => (float[C,A,B] y)",
            "a = Transpose <perm = [1,2,0]> (x)  b = Transpose <perm = [1,2,0]> (a)  y = Relu (b)",
            ["Transpose", "Relu"],
        ),
        (
            "(float[A,B,1,C] x) => (float[A,C,1,B] y)",
            """i = Constant <value_ints = [2]> ()  a = Squeeze (x, i)  b = Transpose <perm = [0,2,1]> (a)
               c = Unsqueeze (b, i)  y = Relu (c)""",
            ["Transpose", "Relu"],
        ),
        # An axis of size 1 moves without a Transpose.
        (
            "(float[A,1,1,C] x) => (float[A,C,1,1] y)",
            "a = Transpose <perm = [0,3,1,2]> (x)  y = Relu (a)",
            ["Squeeze", "Unsqueeze", "Relu"],
        ),
        # Two that are alike are one.
        (
            "(float[A,B] x) => (float[B,A] y)",
            "a = Transpose (x)  b = Transpose (x)  c = Relu (a)  d = Neg (b)  y = Add (c, d)",
            ["Transpose", "Relu", "Neg", "Add"],
        ),
        # The first stays for its other reader: the second would be no less.
        (
            "(float[A,B,C] x) => (float[A,C,B] y, float[A,C,1,B] z)",
            """i = Constant <value_ints = [2]> ()  a = Transpose <perm = [0,2,1]> (x)  y = Relu (a)
               z = Unsqueeze (a, i)""",
            ["Transpose", "Relu", "Unsqueeze"],
        ),
        (
            "(float[A,6] x) => (float[A,6] y)",
            "i = Constant <value_ints = [0,2,3]> ()  j = Constant <value_ints = [-1,6]> ()  a = Reshape (x, i)  "
            "b = Reshape (a, j)  y = Relu (b)",
            ["Relu"],
        ),
        (
            "(float[A,B] x) => (float[A,B] y)",
            "a = Transpose (x)  y = Transpose (a)",
            ["Identity"],
        ),
    ],
)
def test_axis_moves_cancel(signature: str, body: str, expected: list[str]) -> None:
    assert after(Cancel, f"agraph {signature} {{ {body} }}")[0] == expected


# Norms


def layer_norm(scale: str, rank: str = "N,S,2") -> str:
    return f"""agraph (float[{rank}] x) => (float[{rank}] y)
      <float[2] g = {{{scale}}}, float[2] b = {{0.5, -0.25}}, float[2,2] w = {{1,2,3,4}}> {{
        n = LayerNormalization (x, g, b)  y = MatMul (n, w) }}"""


@pytest.mark.parametrize("scale", ["1.5, 2.0", "0.0, 2.0", "1.0e-6, 2.0"])
def test_norms_are_over_channels(scale: str) -> None:
    model = normalize(model_of(layer_norm(scale)))
    inputs = {"x": np.random.default_rng(0).standard_normal((2, 3, 2)).astype(np.float32)}
    expected = evaluate(model, inputs)
    laid = Infer()(Tidy()(LinearToConv(Report())(model)))
    result = Tidy()(ChannelNorm(Report())(laid))
    compare("channel_norm", expected, result, inputs)
    ops = ops_of(result)
    assert "LayerNormalization" not in ops
    assert ops[ops.index("Reciprocal") + 1 :][:3] == ["Mul", "Mul", "Add"]


def test_norms_far_from_the_layout_stay() -> None:
    text = """agraph (float[N,S,2] x) => (float[N,S,2] y) <float[2] g = {1,2}> { y = LayerNormalization (x, g) }"""
    ops, report = after(ChannelNorm, text)
    assert ops == ["LayerNormalization"]
    assert report.left[0].text == "no node before or after it is in the layout"


# Heads


def test_attention_far_from_the_layout_stays() -> None:
    text = """agraph (float[B,2,S,4] q, float[B,2,4,S] k, float[B,2,S,4] v) => (float[B,S,8] y)
      <int64[3] r = {0, 0, 8}> {
        s = MatMul (q, k)  p = Softmax (s)  m = MatMul (p, v)
        t = Transpose <perm = [0,2,1,3]> (m)  y = Reshape (t, r) }"""
    ops, report = after(SplitHeads, text)
    assert ops == ["MatMul", "Softmax", "MatMul", "Transpose", "Reshape"]
    assert len(report.left) == 1


def test_attention_whose_shares_are_an_output_stays() -> None:
    text = """agraph (float[B,2,S,4] q, float[B,2,S,4] k, float[B,2,S,4] v) => (float[B,S,8] y, float[B,2,S,S] p)
      <int64[3] r = {0, 0, 8}> {
        h = Transpose <perm = [0,1,3,2]> (k)  s = MatMul (q, h)  p = Softmax (s)  m = MatMul (p, v)
        t = Transpose <perm = [0,2,1,3]> (m)  y = Reshape (t, r) }"""
    _, report = after(SplitHeads, text)
    assert report.left[0].text == "'p' is read elsewhere too"


def test_attention_whose_nan_are_caught_stays() -> None:
    text = """agraph (float[B,2,S,4] q, float[B,2,4,S] k, float[B,2,S,4] v) => (float[B,2,S,4] y) <float zero = {0.0}> {
      s = MatMul (q, k)  p = Softmax (s)  n = IsNaN (p)  c = Where (n, zero, p)  y = MatMul (c, v) }"""
    _, report = after(SplitHeads, text)
    assert report.left[0].text == "its result is not multiplied with values, but read by Equal, Where"


# Sizes


def sizes(text: str) -> ModelProto:
    return normalize(model_of(text))


def test_sizes_keep_their_names_through_computed_shapes() -> None:
    text = """agraph (float[B,S,6] x) => (float[U,V,2,3] y) <int64[2] r = {-1, 6}, int64[2] h = {2, 3}> {
      rows = Reshape (x, r)  d = Shape <start = 0, end = 2> (x)  t = Concat <axis = 0> (d, h)
      n = Relu (rows)  z = Reshape (n, t)  y = Neg (z) }"""
    index = Index(sizes(text).graph, "test")
    assert index.dims("rows") == ("B*S", 6)
    assert index.dims("z") == ("B", "S", 2, 3)


def test_sizes_that_are_cut_are_new() -> None:
    text = """agraph (float[B,S,6] x, int64[1] n) => (float[B,T,6] y) <int64[1] zero = {0}, int64[1] one = {1}> {
      z = Slice (x, zero, n, one)  y = Neg (z) }"""
    dims = Index(sizes(text).graph, "test").dims("z")
    assert dims is not None
    assert (dims[0], dims[2]) == ("B", 6)
    assert dims[1] not in ("S", None)


def test_sizes_that_broadcast_are_not_taken_for_each_other() -> None:
    text = "agraph (float[B,S,6] x, float[T,6] z) => (float[B,U,6] y) { a = Add (x, z)  y = Neg (a) }"
    dims = Index(sizes(text).graph, "test").dims("a")
    assert dims is not None
    assert dims[0] == "B"
    assert dims[1] not in ("S", "T", None)


# Caught NaN

GUARDED = """agraph (float[N,2,4] x) => (float[N,2,4] y)
  <int64[4] heads = {0,0,2,2}, int64[3] flat = {0,0,4}, float zero = {0}, float[1,1,2,2] mask = MASK> {
    h = Reshape (x, heads)  q = Transpose <perm=[0,2,1,3]> (h)  k = Transpose <perm=[0,2,3,1]> (h)
    s = MatMul (q, k)  a = Add (s, mask)  p = Softmax (a)  n = IsNaN (p)  c = Where (n, zero, p)
    m = MatMul (c, q)  t = Transpose <perm=[0,2,1,3]> (m)  y = Reshape (t, flat) }"""


@pytest.mark.parametrize(
    ("mask", "num_wheres"),
    [("{0,-inf,0,0}", 0), ("{0,0,-inf,-inf}", 1), ("{-3.4e38,-3.4e38,0,0}", 0)],
)
def test_nan_of_known_masks_are_replaced_after_the_attention(mask: str, num_wheres: int) -> None:
    text = GUARDED.replace("MASK", mask)
    ops, report = after(NanGuards, text)
    assert (Counter(ops)["Where"], report.counts()["nan_guards"]) == (num_wheres, 1)
    assert "Not" not in ops


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("a = Add (s, mask)", "a = Mul (s, mask)"), "its mask (B, 1, Q, K) is neither a constant"),
        (("MASK", "{inf,0,0,0}"), "its mask (B, 1, Q, K) is neither a constant"),
        (("t = Transpose <perm=[0,2,1,3]> (m)", "t = Transpose <perm=[0,1,2,3]> (m)"), "are not merged to (B, Q, C)"),
    ],
)
def test_nan_of_other_masks_stay_caught(change: tuple[str, str], reason: str) -> None:
    text = GUARDED.replace(*change).replace("MASK", "{0,-inf,0,0}")
    ops, report = after(NanGuards, text)
    assert "Where" in ops
    assert reason in report.left[0].text


# Keys turned by way of rank 3


def test_a_transpose_of_the_last_axes_needs_no_reshapes() -> None:
    text = """agraph (float[2,3,4,5] x) => (float[2,3,5,4] y) <int64[3] rows = {6,4,5}, int64[4] back = {2,3,5,4}> {
      r = Reshape (x, rows)  t = Transpose <perm=[0,2,1]> (r)  y = Reshape (t, back) }"""
    assert after(WithoutReshapes, text)[0] == ["Transpose"]


def test_a_transpose_of_other_rows_stays() -> None:
    text = """agraph (float[2,3,4,5] x) => (float[2,3,5,4] y) <int64[3] rows = {6,5,4}, int64[4] back = {2,3,5,4}> {
      r = Reshape (x, rows)  t = Transpose <perm=[0,2,1]> (r)  y = Reshape (t, back) }"""
    assert after(WithoutReshapes, text)[0] == ["Reshape", "Transpose", "Reshape"]


# Rotary embeddings


def rope(*, order: str = "heads", table: str = "S,4", change: tuple[str, str] = ("", "")) -> str:
    """Heads (B, heads, S, 4), or (B, S, heads, 4), of the middle 8 of 12 channels of a convolution."""
    turn = "h = Transpose <perm=[0,2,1,3]> (r)" if order == "heads" else "h = Identity (r)"
    shape = "B,2,S,4" if order == "heads" else "B,S,2,4"
    return f"""agraph (float[B,12,S] z, float[{table}] cos, float[{table}] sin) => (float[{shape}] y)
    <int64[1] a = {{2}}, int64[1] b = {{10}}, int64[1] axis = {{2}}, int64[4] heads = {{0,0,2,4}},
     int64[1] half = {{2}}, int64[1] none = {{0}}, int64[1] all = {{4}}, int64[1] last = {{3}}> {{
      x = Transpose <perm=[0,2,1]> (z)  c = Slice (x, a, b, axis)  r = Reshape (c, heads)  {turn}
      left = Slice (h, none, half, last)  right = Slice (h, half, all, last)
      minus = Neg (right)  rotated = Concat <axis=-1> (minus, left)
      p = Mul (cos, h)  q = Mul (rotated, sin)  y = Add (q, p) }}""".replace(*change)


@pytest.mark.parametrize(
    ("order", "table"), [("heads", "S,4"), ("heads", "B,1,S,4"), ("steps", "S,1,4"), ("steps", "B,S,1,4")]
)
def test_all_heads_are_turned_at_once(order: str, table: str) -> None:
    ops, report = after(Rope, rope(order=order, table=table))
    assert report.counts() == {"rope": 1}
    assert "Neg" not in ops


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("(minus, left)", "(left, minus)"), None),
        (("minus = Neg (right)", "minus = Neg (left)"), None),
        (
            ("h = Transpose <perm=[0,2,1,3]> (r)", "i = Transpose <perm=[0,2,1,3]> (r)  h = Relu (i)"),
            "not made of the channels",
        ),
        (("x = Transpose <perm=[0,2,1]> (z)", "w = Transpose <perm=[0,2,1]> (z)  x = Relu (w)"), "no node before it"),
    ],
)
def test_what_is_no_such_embedding_stays(change: tuple[str, str], reason: str | None) -> None:
    ops, report = after(Rope, rope(change=change))
    assert "Neg" in ops
    assert report.counts() == {}
    assert [reason in entry.text for entry in report.left if reason] == [True] * bool(reason)


def test_tables_for_each_head_stay() -> None:
    report = after(Rope, rope(table="B,2,S,4"))[1]
    assert "differs from head to head" in report.left[0].text


# Shared heads


@pytest.mark.parametrize(
    ("dims", "result", "expected"),
    [
        ("B,2,S,4", "0,8,-1,4", Channels(2, 4, 4)),
        ("B,1,S,8", "0,4,-1,8", Channels(1, 8, 4)),
    ],
)
def test_repeated_heads_are_found(dims: str, result: str, expected: Channels) -> None:
    heads, width = dims.split(",")[1], dims.split(",")[3]
    text = f"""agraph (float[B,S,8] x) => (float[B,{result.split(",")[1]},S,{width}] y)
    <int64[4] parts = {{0,0,{heads},{width}}}, int64[1] two = {{2}},
     int64[5] wide = {{1,1,4,1,1}}, int64[4] back = {{{result}}}> {{
      r = Reshape (x, parts)  t = Transpose <perm=[0,2,1,3]> (r)
      u = Unsqueeze (t, two)  e = Expand (u, wide)  y = Reshape (e, back) }}"""
    index = Index(normalize(model_of(text)).graph, "test")
    found = trace(index, Borders(index).is_out, "y")
    assert found is not None
    assert (found.source, found.axes[1]) == ("x", expected)
    parted = read_heads(found)
    assert parted is not None
    assert (parted.num_heads, parted.times) == (int(heads) * 4, 4)
