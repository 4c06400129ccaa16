"""Operators recovered from their parts, and products merged."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from support.graphs import model_of, ops_of
from support.one_pass import ops_after, passed
from triune.graph.passes.merge_projections import MergeProjections
from triune.graph.passes.raise_opset import RaiseOpset
from triune.graph.passes.recover_gelu import RecoverGelu
from triune.graph.passes.recover_hard_swish import RecoverHardSwish
from triune.graph.passes.recover_norms import RecoverLayerNorm, RecoverRmsNorm
from triune.graph.passes.recover_rotary import RecoverRotary
from triune.graph.weight_files import WeightFile

NEAR = 2e-6

NUMBERS = """<float half = {0.5}, float one = {1}, float two = {2}, float three = {3}, float root = {1.4142135},
  float inverse = {0.70710678}, float tanh = {0.7978846}, float cubic = {0.044715}, float zero = {0}, float six = {6},
  float sixth = {0.16666667}, float eps = {0.00001}, int64[1] last = {-1}, float[4] scale = {1, 2, 3, 4},
  float[4] bias = {4, 3, 2, 1}>"""


@pytest.fixture
def file() -> Iterator[WeightFile]:
    with WeightFile() as made:
        yield made


def text_of(nodes: str, shape: str = "2,3,4") -> str:
    return f"g (float[{shape}] x) => (float[{shape}] y) {NUMBERS} {{ {nodes} }}"


GELUS = [
    "a = Div(x, root) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)",
    "h = Mul(x, half) a = Mul(inverse, x) b = Erf(a) c = Add(one, b) y = Mul(h, c)",
    "a = Mul(x, inverse) b = Erf(a) c = Add(b, one) d = Mul(c, half) y = Mul(x, d)",
    "a = Div(x, root) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Div(d, two)",
    "p = Pow(x, three) q = Mul(p, cubic) r = Add(x, q) s = Mul(r, tanh) t = Tanh(s) c = Add(t, one) d = Mul(x, c)"
    " y = Mul(d, half)",
    "p = Mul(cubic, x) q = Mul(x, p) r = Mul(x, q) s = Add(x, r) t = Mul(tanh, s) u = Tanh(t) c = Add(one, u)"
    " d = Mul(half, c) y = Mul(x, d)",
    "p = Mul(x, x) q = Mul(p, cubic) r = Add(q, one) s = Mul(x, r) t = Mul(s, tanh) u = Tanh(t) c = Add(u, one)"
    " d = Mul(x, c) y = Mul(d, half)",
]


@pytest.mark.parametrize("nodes", GELUS)
def test_gelu(nodes: str) -> None:
    assert ops_after(RecoverGelu(), text_of(nodes), rtol=NEAR) == ["Gelu"]


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Div(x, two) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)",
        "a = Div(x, root) b = Erf(a) c = Add(b, two) d = Mul(x, c) y = Mul(d, half)",
        "a = Div(x, root) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, two)",
        "z = Neg(x) a = Div(z, root) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)",
        "p = Pow(x, two) q = Mul(p, cubic) r = Add(x, q) s = Mul(r, tanh) t = Tanh(s) c = Add(t, one) d = Mul(x, c)"
        " y = Mul(d, half)",
    ],
)
def test_what_resembles_gelu_stays(nodes: str) -> None:
    assert "Gelu" not in ops_after(RecoverGelu(), text_of(nodes))


def test_an_older_operator_set_has_no_gelu() -> None:
    assert "Gelu" not in ops_after(RecoverGelu(), text_of(GELUS[0]), opset=17)


def test_gelu_whose_parts_are_outputs() -> None:
    text = f"g (float[2,3,4] x) => (float[2,3,4] y, float[2,3,4] b) {NUMBERS} {{ {GELUS[0]} }}"
    assert ops_after(RecoverGelu(), text, rtol=NEAR) == ["Div", "Erf", "Gelu"]
    text = f"g (float[2,3,4] x) => (float[2,3,4] y, float[2,3,4] d) {NUMBERS} {{ {GELUS[0]} }}"
    assert "Gelu" not in ops_after(RecoverGelu(), text)


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)",
        "a = Add(three, x) b = Clip(a, zero, six) c = Mul(b, sixth) y = Mul(c, x)",
        "a = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, a)",
    ],
)
def test_hard_swish(nodes: str) -> None:
    assert ops_after(RecoverHardSwish(), text_of(nodes), rtol=NEAR) == ["HardSwish"]


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Add(x, two) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)",
        "a = Add(x, three) b = Clip(a, one, six) c = Mul(x, b) y = Div(c, six)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, three)",
        "a = HardSigmoid(x) y = Mul(x, a)",
    ],
)
def test_what_resembles_hard_swish_stays(nodes: str) -> None:
    assert "HardSwish" not in ops_after(RecoverHardSwish(), text_of(nodes))


CENTRED = "m = ReduceMean(x, last) z = Sub(x, m) s = {square} v = ReduceMean(s, last) e = Add(v, eps) r = Sqrt(e)"


@pytest.mark.parametrize("square", ["Pow(z, two)", "Mul(z, z)"])
@pytest.mark.parametrize(
    "end",
    [
        "n = Div(z, r) t = Mul(n, scale) y = Add(t, bias)",
        "i = Reciprocal(r) n = Mul(z, i) t = Mul(scale, n) y = Add(bias, t)",
        "i = Div(one, r) n = Mul(i, z) y = Mul(n, scale)",
    ],
)
def test_layer_norm(square: str, end: str) -> None:
    text = text_of(CENTRED.replace("{square}", square) + " " + end)
    after = passed(RecoverLayerNorm(), text, rtol=1e-5)
    assert ops_of(after) == ["LayerNormalization"]
    assert len(after.graph.node[0].input) == (3 if "bias" in end else 2)


def test_layer_norm_of_old_reductions() -> None:
    nodes = CENTRED.replace("(x, last)", "<axes=[-1]>(x)").replace("(s, last)", "<axes=[2]>(s)")
    text = text_of(nodes.replace("{square}", "Mul(z, z)") + " n = Div(z, r) y = Mul(n, scale)")
    assert ops_after(RecoverLayerNorm(), text, opset=17, rtol=1e-5) == ["LayerNormalization"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(x, last)", "(x, first)"),
        ("(s, last)", "(s, first)"),
        ("Mul(z, z)", "Mul(x, x)"),
        ("Mul(n, scale)", "Mul(n, wide)"),
        ("Add(v, eps)", "Add(v, x)"),
    ],
)
def test_other_norms_stay(old: str, new: str) -> None:
    nodes = CENTRED.replace("{square}", "Mul(z, z)") + " n = Div(z, r) y = Mul(n, scale)"
    more = NUMBERS[:-1] + ", int64[1] first = {1}, float[3,4] wide = {1,2,3,4,5,6,7,8,9,10,11,12}>"
    text = f"g (float[2,3,4] x) => (float[2,3,4] y) {more} {{ {nodes.replace(old, new)} }}"
    assert "LayerNormalization" not in ops_after(RecoverLayerNorm(), text)


RMS = "s = Mul(x, x) v = ReduceMean(s, last) e = Add(v, eps) r = Sqrt(e) n = Div(x, r) y = Mul(n, scale)"


def test_rms_norm() -> None:
    assert ops_after(RecoverRmsNorm(), text_of(RMS), opset=23, rtol=1e-5) == ["RMSNormalization"]
    assert "RMSNormalization" not in ops_after(RecoverRmsNorm(), text_of(RMS), opset=21)
    layer = text_of(CENTRED.replace("{square}", "Mul(z, z)") + " n = Div(z, r) y = Mul(n, scale)")
    assert "RMSNormalization" not in ops_after(RecoverRmsNorm(), layer, opset=23)


ROTARY = """g (float[b,2,s,4] x, float[t,s,2] angles) => (float[b,2,s,4] y)
  <int64[1] zero = {0}, int64[1] half = {2}, int64[1] whole = {4}, int64[1] last = {3}, int64[1] one = {1}> {
  c = Concat<axis=-1>(angles, angles) cos = Cos(c) sin = Sin(c) co = Unsqueeze(cos, one) si = Unsqueeze(sin, one)
  f = Slice(x, zero, half, last) g = Slice(x, half, whole, last) n = Neg(g) r = Concat<axis=-1>(n, f)
  p = Mul(x, co) q = Mul(r, si) y = Add(p, q) }"""


@pytest.mark.parametrize(("batch", "declared"), [(1, "1"), (3, "b")])
def test_rotary(batch: int, declared: str) -> None:
    rng = np.random.default_rng(0)
    inputs: dict[str, Any] = {
        "x": rng.standard_normal((3, 2, 5, 4)).astype(np.float32),
        "angles": rng.standard_normal((batch, 5, 2)).astype(np.float32),
    }
    text = ROTARY.replace("float[t,s,2]", f"float[{declared},s,2]")
    ops = ops_after(RecoverRotary(), text, opset=23, inputs=inputs, rtol=1e-5)
    assert "RotaryEmbedding" in ops
    assert "Neg" not in ops


def test_rotary_of_tables_that_may_not_fit_stays() -> None:
    inputs = {"x": np.ones((3, 2, 5, 4), np.float32), "angles": np.ones((1, 5, 2), np.float32)}
    assert "RotaryEmbedding" not in ops_after(RecoverRotary(), ROTARY, opset=23, inputs=inputs)
    assert "RotaryEmbedding" not in ops_after(RecoverRotary(), ROTARY, opset=21, inputs=inputs)


def projections(count: int, *, is_biased: bool, opset: int = 20) -> ModelProto:
    """Products of x with matrices of (6, 2), (6, 3) and so on, whose results are outputs."""
    rng = np.random.default_rng(1)
    outputs = ", ".join(f"float[n,5,{2 + index}] y{index}" for index in range(count))
    lines = [
        f"m{index} = MatMul(x, w{index}) y{index} = Add(m{index}, b{index})"
        if is_biased
        else f"y{index} = MatMul(x, w{index})"
        for index in range(count)
    ]
    model = model_of(f"g (float[n,5,6] x) => ({outputs}) {{ {' '.join(lines)} }}", opset=opset)
    for index in range(count):
        weight = rng.standard_normal((6, 2 + index)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, f"w{index}"))
        if is_biased:
            model.graph.initializer.append(numpy_helper.from_array(weight[0], f"b{index}"))
    return model


@pytest.mark.parametrize("opset", [12, 20])
@pytest.mark.parametrize("is_biased", [False, True])
def test_products_are_merged(file: WeightFile, is_biased: bool, opset: int) -> None:
    after = passed(MergeProjections(file), projections(3, is_biased=is_biased, opset=opset), rtol=1e-5)
    assert ops_of(after) == (["MatMul", "Add", "Split"] if is_biased else ["MatMul", "Split"])
    assert sum(len(tensor.dims) == 2 for tensor in after.graph.initializer) == 1


def test_two_products_stay(file: WeightFile) -> None:
    assert ops_of(passed(MergeProjections(file), projections(2, is_biased=False))) == ["MatMul", "MatMul"]


def test_the_operator_set_is_raised_where_that_recovers_something(file: WeightFile) -> None:
    run = RaiseOpset(file, [RecoverGelu(), RecoverRmsNorm()])
    after = passed(run, text_of(GELUS[0]), opset=13, rtol=NEAR)
    assert (ops_of(after), after.opset_import[0].version) == (["Gelu"], 25)
    after = passed(run, text_of("y = Erf(x)"), opset=13)
    assert (ops_of(after), after.opset_import[0].version) == (["Erf"], 13)
