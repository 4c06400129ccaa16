"""Models that compute in bf16 become programs of fp32, and the conversion says so."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from support.apple_interpreter import Apart, interpret_apart
from support.graphs import model_of
from triune.coreai.lowering import lower as lower_to_core_ai
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering import lower as lower_to_core_ml
from triune.coreml.package import read_package

WEIGHT = np.random.default_rng(0).standard_normal((4, 3)).astype(ml_dtypes.bfloat16)
X = np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)
RIGHT = np.maximum(X @ WEIGHT.astype(np.float32), 0)
WITHIN = """(float[2,4] x) => (float[2,3] y) {
  b = Cast <to = 16> (x) m = MatMul (b, w) r = Relu (m) y = Cast <to = 1> (r) }"""
THROUGHOUT = "(bfloat16[2,4] x) => (bfloat16[2,3] y) { m = MatMul (x, w) y = Relu (m) }"
NOTE = "BFLOAT16 is computed in fp32"


def model(text: str) -> ModelProto:
    made = model_of(f"g {text}", opset=18)
    made.graph.initializer.append(numpy_helper.from_array(WEIGHT, "w"))
    return made


@pytest.mark.parametrize("text", [WITHIN, THROUGHOUT])
def test_an_ml_program_computes_in_fp32(text: str, tmp_path: Path) -> None:
    lowered = lower_to_core_ml(model(text), tmp_path / "m.mlpackage")
    results, _ = Interpreter(read_package(lowered.path)).run({"x": X}, {})
    np.testing.assert_allclose(results["y"], RIGHT, atol=1e-5)
    assert any(NOTE in note and "MatMul 'm'" in note for note in lowered.notes)


def test_a_core_ai_program_computes_in_fp32(tmp_path: Path) -> None:
    lowered = lower_to_core_ai(model(WITHIN), tmp_path / "m.aimodel")
    np.testing.assert_allclose(Apart(interpret_apart)((lowered.path, {"x": X}))["y"], RIGHT, atol=1e-5)
    assert any(NOTE in note for note in lowered.notes)
