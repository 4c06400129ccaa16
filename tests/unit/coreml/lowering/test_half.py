"""Graphs that fp16 does not hold on the way, as ML Programs of fp16, by both executors against ONNX Runtime in fp32."""

from pathlib import Path
from typing import Any

import numpy as np

from support.half_cases import CASES, chosen, joined, misses
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


def _passed(array: Any) -> Any:
    narrow = array.astype(np.int32) if array.dtype.kind in "biu" else array
    return narrow.reshape(1) if narrow.ndim == 0 else narrow
