"""Graphs that fp16 does not hold on the way, as ML Programs of fp16, by both executors against ONNX Runtime in fp32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.graphs import model_of
from support.half_cases import CASES, SOURCES, chosen, joined, misses
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering import LowerOptions, lower
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package
from triune.graph.conversion.options import Layout, Precision


def test_answers_are_those_of_fp32(stride: int, tmp_path: Path) -> None:
    cases = chosen(CASES, stride)
    lowered = lower(joined(cases), tmp_path / "m.mlpackage", LowerOptions(precision=Precision.FP16))
    feeds = {name: array for case in cases for name, array in case.renamed_feeds().items()}
    given = {lowered.inputs[name]: _passed(array) for name, array in feeds.items()}
    for executor in (OnnxExecutor, Interpreter):
        results, _ = executor(read_package(lowered.path)).run(given, {})
        assert misses(cases, {case.output: results[lowered.outputs[case.output]] for case in cases}) == []
    assert "compute in fp32" in lowered.notes[0]


def test_answers_are_those_of_fp32_for_the_neural_engine_where_there_are_no_transformers(
    stride: int, tmp_path: Path
) -> None:
    cases = chosen(CASES, stride)
    options = LowerOptions(precision=Precision.FP16, layout=Layout.ANE)
    # Together they have linear layers, which are brought into the layout.
    for case in cases if stride == 1 else cases[::4]:
        lowered = lower(case.model, tmp_path / "m.mlpackage", options)
        given = {lowered.inputs[name]: _passed(array) for name, array in case.feeds.items()}
        results, _ = OnnxExecutor(read_package(lowered.path)).run(given, {})
        assert misses([case], {case.output: results[lowered.outputs["y"]]}) == []


@pytest.mark.parametrize("options", [{}, {"layout": Layout.ANE}, {"keep_fp32": frozenset({"Softmax"})}])
def test_sources_in_fp16_are_treated_as_those_in_fp32(stride: int, tmp_path: Path, options: dict[str, Any]) -> None:
    sources, cases = (chosen(each, stride) for each in SOURCES)
    precision = Precision.MIXED if "keep_fp32" in options else Precision.FP16
    lowered = lower(joined(sources), tmp_path / "m.mlpackage", LowerOptions(precision=precision, **options))
    given = {lowered.inputs[name]: _passed(array) for case in sources for name, array in case.renamed_feeds().items()}
    results, _ = OnnxExecutor(read_package(lowered.path)).run(given, {})
    answers = {case.output: results[lowered.outputs[case.output]] for case in cases}
    assert misses(cases, answers) == []
    assert {array.dtype for array in answers.values()} == {np.dtype(np.float16)}


def test_a_source_in_fp16_has_no_casts_within(tmp_path: Path) -> None:
    text = """agraph (float16[2,4] x) => (float16[2,4] y) <float16 e = {14336}> {
        m = Mul (x, e) s = Add (m, x) y = Tanh (s) }"""
    lowered = lower(model_of(text), tmp_path / "m.mlpackage", LowerOptions(precision=Precision.FP16))
    ops = [each.op for each in read_package(lowered.path).function(None).block.operations if each.op != "const"]
    assert ops[:3] == ["mul", "add", "tanh"]
    assert "cast" not in ops


def _passed(array: Any) -> Any:
    narrow = array.astype(np.int32) if array.dtype.kind in "biu" else array
    return narrow.reshape(1) if narrow.ndim == 0 else narrow
