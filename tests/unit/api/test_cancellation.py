"""Conversions to fp16 of models whose terms cancel, on inputs that a comparison with noise does not reach."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

import triune
from triune.core.datatypes import Array
from triune.coreai.model import Model
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package
from triune.graph.verify import Verdict

MODELS = {
    "1 - cos(x) near 0": (
        "g (float[4] x) => (float[4] y) <float one={1}> { c=Cos(x) y=Sub(one,c) }",
        {"x": [0.01, 0.012, 0.008, 0.009]},
    ),
    "1000 (1 - sigmoid(x))": (
        """g (float[4] x) => (float[4] y) <float one={1}, float k={1000}> {
        s=Sigmoid(x) d=Sub(one,s) y=Mul(d,k) }""",
        {"x": [9, 9.5, 10, 8.5]},
    ),
    "the distance of near points on the Earth": (
        """g (float[2] a, float[2] b, float[2] c, float[2] d) => (float[2] y)
        <float r={0.017453292}, float half={0.5}, float km={12742}> {
        p=Mul(a,r) q=Mul(c,r) dp=Sub(q,p) l=Mul(b,r) m=Mul(d,r) dl=Sub(m,l) hp=Mul(dp,half) hl=Mul(dl,half)
        s=Sin(hp) t=Sin(hl) ss=Mul(s,s) tt=Mul(t,t) cp=Cos(p) cq=Cos(q) cc=Mul(cp,cq) ct=Mul(cc,tt) h=Add(ss,ct)
        root=Sqrt(h) angle=Asin(root) y=Mul(angle,km) }""",
        {"a": [52.1234, 40], "b": [13.4, 2], "c": [52.1235, 40.001], "d": [13.4002, 2.001]},
    ),
    "2 acos(|w|) of rotations by little": (
        """g (float[2,4] q) => (float[2,1] y) <int64[1] last={3}, float one={1}, float two={2}> {
        w=Gather<axis=1>(q,last) a=Abs(w) m=Min(a,one) c=Acos(m) y=Mul(c,two) }""",
        {"q": [[0.001, 0.002, 0, 0.9999], [0, 0.001, 0, 0.99995]]},
    ),
    "softplus(x) - x": (
        "g (float[4] x) => (float[4] y) { p=Softplus(x) y=Sub(p,x) }",
        {"x": [8, 8.1, 8.2, 8.3]},
    ),
    "places near a centre, by large weights": (
        """g (float[3,2] x) => (float[3,2] y) <float[2] c={52.52, 13.405}, float[2,2] w={70, -30, 20, 90}> {
        d=Sub(x,c) m=MatMul(d,w) y=Tanh(m) }""",
        {"x": [[52.525, 13.4], [52.518, 13.407], [52.52, 13.41]]},
    ),
    "a branch for large inputs": (
        """g (float[4] x) => (float[4] y) <float limit={700}, float one={1}> {
        m=ReduceMax<keepdims=0>(x) b=Greater(m,limit) y=If(b)<
        then_branch = t () => (float[4] u) { k=Div(x,limit) n=Sigmoid(k) d=Sub(one,n) u=Mul(d,x) },
        else_branch = e () => (float[4] v) { v=Identity(x) }> }""",
        {"x": [7000, 8000, 9000, 7500]},
    ),
    "a gate for large inputs": (
        """g (float[4] x) => (float[4] y) <float limit={700}, float one={1}, float thousand={1000}> {
        b=Greater(x,limit) k=Div(x,limit) n=Sigmoid(k) d=Sub(one,n) u=Mul(d,thousand) y=Where(b,u,x) }""",
        {"x": [7000, 8000, 9000, 7500]},
    ),
    "log returns, rounded to fp16 by the model itself": (
        """g (float[4] x) => (float[3] y) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] three = {3},
        int64[1] four = {4}, float hundred = {100}> {
        a=Slice(x,one,four) b=Slice(x,zero,three) e=Log(a) f=Log(b) d=Sub(e,f) u=Mul(d,hundred)
        h=Cast<to=10>(u) y=Cast<to=1>(h) }""",
        {"x": [150.3, 151.2, 149.7, 152.6]},
    ),
    "log returns before weights of int8": (
        """g (float[4, 1] x) => (float[3, 1] y) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] three = {3},
        int64[1] four = {4}, float hundred = {100}, int8[1, 1] w = {90}, float step = {0.01}> {
        a=Slice(x,one,four) b=Slice(x,zero,three) e=Log(a) f=Log(b) d=Sub(e,f) u=Mul(d,hundred)
        v=DequantizeLinear(w,step) y=MatMul(u,v) }""",
        {"x": [[150.3], [151.2], [149.7], [152.6]]},
    ),
}


def answer(path: Path, inputs: Mapping[str, Array]) -> Array:
    """The output of a program, rounded to fp16 where Apple's runtimes do."""
    if path.suffix == ".mlpackage":
        (output,) = OnnxExecutor(read_package(path)).run(inputs, {})[0].values()
        return output
    with Model(path, executor="interpreter") as program:
        (output,) = program.predict(dict(inputs)).values()
        return output


def saved(path: Path, text: str) -> Path:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]>\n{text}')
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("name", "target"),
    [
        *((name, "m.mlpackage") for name in MODELS),
        # The search is the same for both forms. What it finds is written by other code for an asset.
        ("softplus(x) - x", "m.aimodel"),
        ("a branch for large inputs", "m.aimodel"),
    ],
)
def test_what_cancels_is_right_in_fp16(tmp_path: Path, name: str, target: str) -> None:
    text, given = MODELS[name]
    inputs = {key: np.array(values, np.float32) for key, values in given.items()}
    source = saved(tmp_path / "m.onnx", text)
    (expected,) = ort.InferenceSession(source).run(None, inputs)
    # In this process, without the limits of a comparison for which nobody asked.
    done = triune.convert(source, tmp_path / target, precision="fp16", verify=True)
    assert done.verdict is Verdict.RIGHT
    np.testing.assert_allclose(answer(tmp_path / target, inputs), expected, rtol=0.02)


def test_a_conversion_says_which_nodes_are_in_fp32_and_why(tmp_path: Path) -> None:
    known = triune.convert(
        saved(tmp_path / "m.onnx", MODELS["1000 (1 - sigmoid(x))"][0]), tmp_path / "m.mlpackage", precision="fp16"
    )
    (note,) = known.notes
    assert note.startswith("fp16 cannot represent what some nodes compute")
    assert "Sigmoid 's'" in note
    assert "Sub 'd' (fp16 is not exact enough for what it subtracts)" in note
    # No constant cancels here: two elements of the input do.
    found = triune.convert(
        saved(tmp_path / "m.onnx", MODELS["log returns before weights of int8"][0]),
        tmp_path / "m.mlpackage",
        precision="fp16",
        verify=True,
    )
    note = found.notes[-1]
    assert note.startswith("fp16 is not exact enough for ")
    assert "Log 'e'" in note
    assert "Log 'f'" in note


def test_a_branch_that_no_input_takes_computes_in_fp32(tmp_path: Path) -> None:
    """The sum of 4 numbers is not near 54,321 for any generated input."""
    text = """g (float[4] x) => (float[4] y) <float one={1}, float low={54321}, float high={54322}> {
    m=ReduceSum<keepdims=0>(x) a=Greater(m,low) c=Less(m,high) b=And(a,c) y=If(b)<
    then_branch = t () => (float[4] u) { n=Cos(x) u=Sub(one,n) },
    else_branch = e () => (float[4] v) { v=Identity(x) }> }"""
    source = saved(tmp_path / "m.onnx", text)
    done = triune.convert(source, tmp_path / "m.aimodel", precision="fp16", verify=True)
    assert any(
        "no generated input takes the then side of If 'y', so that computes in fp32" in each for each in done.notes
    )
    inputs = {"x": np.array([0.01, 0.012, 54321.3, 0.008], np.float32)}
    (expected,) = ort.InferenceSession(source).run(None, inputs)
    np.testing.assert_allclose(answer(tmp_path / "m.aimodel", inputs)[:2], expected[:2], rtol=0.02)


def test_a_norm_that_core_ml_fuses_is_not_rounded_before(tmp_path: Path) -> None:
    """The rules name its parts, which may be large, but the fused operation would round its operand to fp16."""
    text = """g (float[1,64] x) => (float[1,64] y) <int64[1] last = {1}, float e = {1e-5}> {
        m = ReduceMean (x, last) d = Sub (x, m) q = Mul (d, d) v = ReduceMean (q, last) ve = Add (v, e)
        r = Sqrt (ve) y = Div (d, r) }"""
    source = saved(tmp_path / "m.onnx", text)
    done = triune.convert(source, tmp_path / "m.mlpackage", precision="fp16", verify=True)
    assert not any("answers wrongly" in note for note in done.notes)
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32) * np.float32(0.01) + 3}
    (expected,) = ort.InferenceSession(source).run(None, inputs)
    np.testing.assert_allclose(answer(tmp_path / "m.mlpackage", inputs), expected, atol=0.02)


@pytest.mark.parametrize("target", ["m.aimodel", "m.mlpackage"])
def test_cosines_times_a_hundred_compute_in_fp32(tmp_path: Path, target: str) -> None:
    """As CLIP's: a rounding error of fp16 beside a cosine of 1 is 5% after the Softmax, and Apple's interpreter makes
    200 of them.
    """
    text = """g (float[6,200] x, float[6,200] z) => (float[6,6] y) <int64[1] last = {1}, float scale = {4.6052}> {
        n = ReduceL2 (x, last) m = ReduceL2 (z, last) a = Div (x, n) b = Div (z, m) t = Transpose <perm = [1, 0]> (b)
        s = MatMul (a, t) k = Exp (scale) l = Mul (s, k) y = Softmax (l) }"""
    source = saved(tmp_path / "m.onnx", text)
    done = triune.convert(source, tmp_path / target, precision="fp16", verify=True)
    assert done.verdict is Verdict.RIGHT
    rng = np.random.default_rng(0)
    inputs = {name: (8 + 0.01 * rng.standard_normal((6, 200))).astype(np.float32) for name in ("x", "z")}
    (expected,) = ort.InferenceSession(source).run(None, inputs)
    np.testing.assert_allclose(answer(tmp_path / target, inputs), expected, rtol=0.05)
