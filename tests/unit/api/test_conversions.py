"""Programs of fp16 round after each operation: what is raised of them is judged as it rounds, and runs so."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import triune
from support.graphs import answers, model_of
from support.half_cases.case import floats, half_case, number
from triune import coreai
from triune.api.conversions import coreai_to_onnx, coreml_to_onnx
from triune.coreai import lowering as core_ai
from triune.coreml import lowering as core_ml
from triune.graph.conversion.options import Precision
from triune.graph.verify import Verdict

_TIMES = np.eye(4, dtype=np.float32)
_BEYOND = half_case(
    "beyond",
    "a = MatMul (x, v) b = MatMul (x, w) p = Mul (a, b) y = Sub (p, a)",
    {"v": _TIMES * 2, "w": _TIMES * 3},
    x=floats(200, 3, -150, 50),
)
_ROUNDED = half_case(
    "rounded",
    "a = MatMul (x, v) b = Add (a, far) c = Sub (b, far) y = Mul (c, s)",
    {"v": _TIMES, "far": number(2048), "s": number(3)},
    x=floats(0.3, 0.7, -0.4, 1.2),
)
"""ONNX Runtime computes in fp32 between casts, which it takes out: it has 6e4 * 2 and 0.3 where fp16 has neither."""


def _tell(what: str) -> None:
    del what


@pytest.mark.parametrize("case", [_BEYOND, _ROUNDED], ids=lambda case: case.name)
def test_what_is_raised_of_a_package_in_fp16_is_right(case: Any, tmp_path: Path) -> None:
    lowered = core_ml.lower(case.model, tmp_path / "m.mlpackage", core_ml.LowerOptions(precision=Precision.FP16))
    (verdict,) = coreml_to_onnx(lowered.path, tmp_path / "m.onnx", None, _tell, case.feeds).verdicts or ()
    assert verdict.verdict is Verdict.RIGHT


def test_what_is_raised_of_an_asset_in_fp16_is_right_and_runs_as_it_rounds(tmp_path: Path) -> None:
    options = core_ai.LowerOptions(precision=Precision.FP16)
    path = core_ai.lower(_BEYOND.model, tmp_path / "m.aimodel", options).path
    (verdict,) = coreai_to_onnx(path, tmp_path / "m.onnx", None, _tell, _BEYOND.feeds).verdicts or ()
    assert verdict.verdict is Verdict.RIGHT
    with coreai.load(path, executor="onnxruntime") as raised, coreai.load(path, executor="interpreter") as apples:
        found, right = (model.predict(_BEYOND.feeds)["y"] for model in (raised, apples))
    assert np.isinf(right).any()
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("last", ["m.mlpackage", "m.aimodel"])
def test_integers_near_their_ends_are_divided_rightly_on_every_way(last: str, tmp_path: Path) -> None:
    """What is raised of a division in Core ML is converted again: within it nothing may leave int32."""
    source = model_of("g (int32[5] a, int32[5] b) => (int32[5] d) { d = Div (a, b) }")
    onnx.save(source, tmp_path / "m.onnx")
    triune.convert(tmp_path / "m.onnx", tmp_path / "first.mlpackage")
    triune.convert(tmp_path / "first.mlpackage", tmp_path / "raised.onnx")
    done = triune.convert(tmp_path / "raised.onnx", tmp_path / last)
    assert not done.notes
    low, high = -(2**31), 2**31 - 1
    inputs = {
        name: np.array(each, np.int32) for name, each in (("a", [low, low, -7, high, high]), ("b", [3, -100, 2, -3, 1]))
    }
    with triune.load(tmp_path / last, "cpu") as model:
        found = model.predict(inputs)["d"]
    np.testing.assert_array_equal(found, answers(source, inputs)[0])


def compare_large(folder: Path, target: str, *, atol: float) -> None:
    """Convert m.onnx in `folder`, and compare its answer on large numbers with ONNX Runtime's finite one."""
    triune.convert(folder / "m.onnx", folder / target)
    x = (np.random.default_rng(0).standard_normal((1, 2, 3, 4)) * 4000).astype(np.float16)
    (expected,) = onnxruntime.InferenceSession(folder / "m.onnx").run(None, {"x": x})
    assert np.isfinite(expected).all()
    with triune.load(folder / target, "cpu") as model:
        found = model.predict({"x": x})["y"]
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), rtol=0.01, atol=atol)


@pytest.mark.parametrize("target", ["m.mlpackage", "m.aimodel"])
@pytest.mark.parametrize(
    "node",
    [
        "LpNormalization (x)",
        "ReduceL2 (x, axes)",
        "ReduceL1 (x, axes)",
        "LRN <size = 3> (x)",
        "GlobalLpPool (x)",
        "LpPool <kernel_shape = [2, 2]> (x)",
    ],
)
def test_sums_of_squares_in_models_of_fp16_do_not_overflow(node: str, target: str, tmp_path: Path) -> None:
    """ONNX Runtime computes them in fp32, where the square of 256 is a number."""
    text = f"g (float16[1,2,3,4] x) => (float16[a,b,c,d] y) <int64[1] axes = {{-1}}> {{ y = {node} }}"
    onnx.save(model_of(text, opset=18), tmp_path / "m.onnx")
    compare_large(tmp_path, target, atol=0.01)


WITHIN = {
    "a function": """<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
g (float16[1,2,3,4] x) => (float16[1,2,3,1] y) { y = own.length (x) }
<domain: "own", opset_import: ["" : 18]> length (a) => (b) {
axes = Constant <value = int64[1] {-1}> () b = ReduceL2 (a, axes) }""",
    "a body": """<ir_version: 10, opset_import: ["" : 18]>
g (float16[1,2,3,4] x) => (float16[1,2,3,1] y) <int64[1] axes = {-1}, int64 two = {2}> {
begin = ReduceMin (x, axes) go = Constant <value = bool {1}> ()
y = Loop (two, go, begin) <body = each (int64 i, bool c, float16[1,2,3,1] old) => (bool d, float16[1,2,3,1] new) {
d = Identity (c) length = ReduceL2 (x, axes) less = ReduceMax (x, axes) new = Sub (length, less) }> }""",
}


@pytest.mark.parametrize("target", ["m.mlpackage", "m.aimodel"])
@pytest.mark.parametrize("where", WITHIN)
def test_sums_of_squares_in_functions_and_bodies_do_not_overflow(where: str, target: str, tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(WITHIN[where]), tmp_path / "m.onnx")
    compare_large(tmp_path, target, atol=4)


@pytest.mark.parametrize("target", ["m.mlpackage", "m.aimodel"])
@pytest.mark.parametrize(
    "node",
    [
        "LayerNormalization <epsilon = 1e-12> (x, w, w)",
        "InstanceNormalization <epsilon = 1e-12> (x, v, v)",
        "com.microsoft.SkipLayerNormalization <epsilon = 1e-12> (x, x, w, w)",
    ],
)
def test_guards_of_normalizations_in_fp16_stay_positive(node: str, target: str, tmp_path: Path) -> None:
    """An epsilon of 1e-12, as BERT has it, is 0 in fp16: rows of equal numbers were 0 divided by 0."""
    weights = "float16[4] w = {1,2,3,4}, float16[2] v = {1,2}"
    text = f"g (float16[1,2,4] x) => (float16[a,b,c] y) <{weights}> {{ y = {node} }}"
    model = model_of(text, opset=18)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, tmp_path / "m.onnx")
    triune.convert(tmp_path / "m.onnx", tmp_path / target)
    x = np.array([[[3, 3, 3, 3], [1, 2, 3, 4]]], np.float16)
    (expected,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": x})
    assert np.isfinite(expected).all()
    with triune.load(tmp_path / target, "cpu") as loaded:
        found = loaded.predict({"x": x})["y"]
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), rtol=0.01, atol=0.01)
