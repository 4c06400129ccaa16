"""What matchers find: the values by name, the numbers, and the nodes that are covered."""

import pytest

from support.graphs import model_of
from triune.graph.index import Index
from triune.graph.match.attention import constant_factor, match_attention
from triune.graph.match.gather_matmul import match_gather_matmul
from triune.graph.match.linear import match_linear
from triune.graph.match.mean_square import match_mean_square, uncentered
from triune.graph.match.rms_norm import match_rms_norm
from triune.graph.match.rotary import has_equal_halves, match_rotary
from triune.graph.normalize import normalize


def index_of(text: str) -> Index:
    return Index(normalize(model_of(f"agraph {text}")).graph, "test")


ATTENTION = """(float[1,2,4,8] q, float[1,2,8,4] k, float[1,2,4,8] v, float[1,1,4,4] m) => (float[1,2,4,8] y)
<float c = {0.5}, float d = {4}> { STEPS p = Softmax <axis = -1> (s) y = MatMul (p, v) }"""


@pytest.mark.parametrize(
    ("steps", "scale", "masking"),
    [
        ("s = MatMul (q, k)", 1.0, []),
        ("a = MatMul (q, k) b = Mul (c, a) e = Div (b, d) s = Add (e, m)", 0.125, ["Add"]),
        ("a = MatMul (q, k) b = Add (a, m) s = Mul (b, c)", 1.0, ["Add", "Mul"]),
    ],
)
def test_attention_is_found_with_its_scale_and_masks(steps: str, scale: float, masking: list[str]) -> None:
    index = index_of(ATTENTION.replace("STEPS", steps))
    (found,) = (each for node in index.graph.node for each in match_attention(index, node))
    scores = found.scores
    assert (scores.queries, scores.keys, found.values, scores.scale) == ("q", "k", "v", scale)
    assert [step.node.op_type for step in scores.masking] == masking
    assert {id(node) for node in found.nodes} == {id(node) for node in index.graph.node}
    if masking:
        assert scores.masking[0].others[0][1] == "m"


def test_each_product_that_may_be_the_scores_is_one_reading() -> None:
    steps = "a = MatMul (q, k) b = MatMul (q, k) s = Add (a, b)"
    index = index_of(ATTENTION.replace("STEPS", steps.replace("b = MatMul (q, k)", "n = Neg (q) b = MatMul (n, k)")))
    found = [each for node in index.graph.node for each in match_attention(index, node)]
    assert sorted(each.scores.queries for each in found) == sorted(["q", index.graph.node[1].output[0]])


@pytest.mark.parametrize("queries", ["float[1,2,4,8] q", "float[4,8] q"])
def test_a_factor_that_lifts_the_rank_is_none(queries: str) -> None:
    text = ATTENTION.replace("float[1,2,4,8] q", queries).replace("float c = {0.5}", "float[1,1,1,1] c = {0.5}")
    index = index_of(text.replace("STEPS", "r = Mul (c, q) s = MatMul (r, k)"))
    is_lifted = queries == "float[4,8] q"
    assert constant_factor(index, "r") == ((1.0, "r") if is_lifted else (0.5, "q"))


def test_a_softmax_of_other_things_is_no_attention() -> None:
    index = index_of("(float[2,3] x, float[3,3] w) => (float[2,3] y) { p = Softmax (x) y = MatMul (p, w) }")
    assert [each for node in index.graph.node for each in match_attention(index, node)] == []


ROTARY = """(float[1,2,3,8] x, float[3,4] f) => (float[1,2,3,8] y)
<int64[1] zero = {0}, int64[1] half = {4}, int64[1] end = {8}, int64[1] last = {-1}> {
  g = Concat <axis = -1> (f, f)  cos = Cos (g)  sin = Sin (g)
  a = Slice (x, zero, half, last)  b = Slice (x, START, end, last)  n = Neg (b)  r = Concat <axis = -1> (n, a)
  s = Mul (x, cos)  t = Mul (r, sin)  y = Add (t, s) }"""


def test_rotary_embeddings_are_found() -> None:
    index = index_of(ROTARY.replace("START", "half"))
    (found,) = match_rotary(index, index.graph.node[-1], lambda _: False)
    assert (found.x, found.cos, found.sin) == ("x", "cos", "sin")
    assert [node.op_type for node in found.nodes] == ["Neg", "Concat", "Mul", "Mul", "Add"]
    assert has_equal_halves(index, "cos", 8)
    assert not has_equal_halves(index, "x", 8)


def test_a_gather_of_single_elements_keeps_no_halves() -> None:
    text = """(int64[3,8] i) => (float[3,8] y) <float[8] t = {1, 2, 3, 4, 1, 2, 3, 4}> { y = Gather (t, i) }"""
    assert not has_equal_halves(index_of(text), "y", 8)
    rows = text.replace("float[8] t = {", "float[2,8] t = {1, 2, 3, 4, 1, 2, 3, 4, ").replace("[3,8]", "[3]")
    assert has_equal_halves(index_of(rows), "y", 8)


def test_other_parts_than_halves_are_no_rotary_embedding() -> None:
    index = index_of(ROTARY.replace("START", "half").replace("Neg (b)", "Neg (a)"))
    assert list(match_rotary(index, index.graph.node[-1], lambda _: False)) == []


NORM = """(float[2,8] x) => (float[2,8] y)
<float[8] w = {1,2,3,4,5,6,7,8}, float e = {0.001}, int64[1] last = {-1}, float one = {1}> {
  z = CENTRE (x OTHER)  q = Mul (z, z)  m = ReduceMean (q, last)  t = Add (e, m)  r = Sqrt (t)
  i = Div (one, r)  n = Mul (z, i)  y = Mul (n, w) }"""


def test_rms_normalization_is_found() -> None:
    index = index_of(NORM.replace("CENTRE", "Neg").replace("OTHER", ""))
    found = match_rms_norm(index, index.graph.node[-1])
    assert found is not None
    assert (found.x, found.computed_as, found.scale) == ("z", "z", "w")
    assert found.epsilon == pytest.approx(0.001)
    assert [node.op_type for node in found.nodes][:3] == ["Mul", "ReduceMean", "Add"]


def test_a_mean_square_of_differences_from_the_mean_is_a_variance() -> None:
    text = NORM.replace("z = CENTRE (x OTHER)", "c = ReduceMean (x, last)  z = Sub (x, c)")
    index = index_of(text)
    (found,) = (each for node in index.graph.node if (each := match_mean_square(index, node)) is not None)
    assert (found.z, found.axes, uncentered(index, found)) == ("z", (1,), "x")


@pytest.mark.parametrize(
    ("body", "alpha", "beta", "bias", "ops"),
    [
        ("p = MatMul (x, w) y = Add (p, b)", 1, 1, "b", ["MatMul", "Add"]),
        ("y = Gemm <alpha = 2.0, beta = 3.0> (x, w, b)", 2, 3, "b", ["Gemm"]),
        ("p = MatMul (x, w) y = Add (p, p)", 1, 1, "", ["MatMul"]),
    ],
)
def test_linear_layers_are_found(body: str, alpha: float, beta: float, bias: str, ops: list[str]) -> None:
    constants = "<float[2,3] w = {1,2,3,4,5,6}, float[3] b = {1,2,3}>"
    index = index_of(f"(float[N,2] x) => (float[N,3] y) {constants} {{ {body} }}")
    found = match_linear(index, index.graph.node[0])
    assert found is not None
    assert (found.x, found.num_inputs, found.num_outputs, found.alpha, found.beta) == ("x", 2, 3, alpha, beta)
    assert (found.bias, [node.op_type for node in found.nodes]) == (bias, ops)


def test_products_with_chosen_matrices_are_found() -> None:
    index = index_of(
        "(float[2,1,3] x, float[5,3,4] w, float[2,5] r) => (float[2,1,4] y) <int64[1] one = {1}, int64[1] two = {2}>"
        "{ s, i = TopK (r, one) j = Reshape (i, two) g = Gather (w, j) y = MatMul (x, g) }"
    )
    found = match_gather_matmul(index, index.graph.node[-1])
    assert found is not None
    assert (found.x, found.matrices, found.indices) == ("x", "w", "j")
