"""Graphs that fp16 does not hold on the way, as assets of fp16, by Apple's interpreter and as they are raised."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from support.apple_interpreter import Apart, interpret_apart
from support.apple_lowered import check
from support.graphs import model_of
from support.half_cases import CASES, SOURCES, chosen, joined, misses
from triune.core.errors import UnsupportedError
from triune.coreai.lowering import LowerOptions, lower
from triune.coreai.model import Model
from triune.graph.conversion.options import Layout, Precision
from triune.graph.passes.narrow_values import narrow_array

_APART = Apart(interpret_apart)


def test_answers_are_those_of_fp32(stride: int, tmp_path: Path) -> None:
    cases = chosen(CASES[1:], stride)
    lowered = lower(joined(cases), tmp_path / "m.aimodel", LowerOptions(precision=Precision.FP16))
    feeds = {name: narrow_array(name, array) for case in cases for name, array in case.renamed_feeds().items()}
    assert misses(cases, _APART((lowered.path, feeds))) == []
    with Model(lowered.path, executor="onnxruntime") as model:
        assert misses(cases, model.predict(feeds)) == []
    assert "compute in fp32" in lowered.notes[0]


@pytest.mark.parametrize("options", [{}, {"layout": Layout.ANE}, {"keep_fp32": frozenset({"Softmax"})}])
def test_sources_in_fp16_are_treated_as_those_in_fp32(stride: int, tmp_path: Path, options: dict[str, Any]) -> None:
    sources, cases = (chosen(each, stride) for each in SOURCES)
    precision = Precision.MIXED if "keep_fp32" in options else Precision.FP16
    lowered = lower(joined(sources), tmp_path / "m.aimodel", LowerOptions(precision=precision, **options))
    feeds = {name: narrow_array(name, array) for case in sources for name, array in case.renamed_feeds().items()}
    answers = _APART((lowered.path, feeds))
    assert misses(cases, answers) == []
    assert {np.asarray(array).dtype for array in answers.values()} == {np.dtype(np.float16)}


def test_refusals_name_nodes_as_the_model_does(tmp_path: Path) -> None:
    text = "agraph (float[1,2,8,8] x, float[3,4] r, int64[3] b) => (float[3,2,1,1] y) { y = RoiAlign (x, r, b) }"
    with pytest.raises(UnsupportedError, match="RoiAlign 'y': the number of its samples"):
        lower(model_of(text), tmp_path / "m.aimodel", LowerOptions(precision=Precision.FP16))


def test_small_numbers_of_a_source_in_fp16_are_what_they_are(tmp_path: Path) -> None:
    """Apple's library misreads constants of fp16 below 6.1e-5 where it computes with them: 3e-5 as 2e-7."""
    text = """agraph (float16[1,4] x) => (float16[1,4] a, float16[1,4] b, float16[1,4] c) {
        weights = DequantizeLinear <axis = 1> (q, scales) a = MatMul (x, weights)
        m = Mul (x, e) n = Neg (m) b = Mul (n, f)
        levels = QuantizeLinear (m, e, zero) c = DequantizeLinear (levels, e, zero)
    }"""
    model = model_of(text, opset=21)
    numbers = {"scales": [6e-5, 3e-5, 1e-5, 2e-4], "e": 3e-5, "f": 100}
    constants = {name: np.array(each, np.float16) for name, each in numbers.items()}
    constants |= {"q": np.array([[-128, 127, 100, -1]] * 4, np.int8), "zero": np.array(0, np.int8)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    check(model, {"x": np.array([[100, 20, -40, 50]], np.float16)}, tmp_path, atol=1e-5, rtol=1e-2)
