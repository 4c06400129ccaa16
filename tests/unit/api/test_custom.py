"""Conversions of models with custom operators."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import triune
from support.custom_ops import SOURCE, in_numpy, with_body
from support.graphs import answers, ops_of
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.verify import Verdict

X = np.array([[3, -1, 2], [0, 1, 5]], np.float32)
SHAPES = {"x": (2, 3)}


@pytest.fixture
def ops(tmp_path: Path) -> Path:
    path = tmp_path / "ops.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(with_body().SerializeToString())
    return path


def test_bodies_are_converted(source: Path, ops: Path, tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    target = tmp_path / "model.mlpackage"
    done = triune.convert(source, target, custom_ops=ops, shapes=SHAPES, verify=True)
    assert done.verdict is Verdict.RIGHT
    assert len([note for note in done.notes if "body and numpy function differ by" in note]) == 2
    y = triune.predict(target, {"x": X}, "cpu")["y"]
    np.testing.assert_allclose(y, answers(onnx.load(str(written(source, ops))), {"x": X})[0], rtol=1e-4, atol=1e-6)


def written(source: Path, ops: Path) -> Path:
    target = source.with_name("whole.onnx")
    triune.convert(source, target, custom_ops=ops)
    return target


def test_onnx_becomes_onnx_with_the_bodies(source: Path, ops: Path) -> None:
    whole = onnx.load(str(written(source, ops)))
    assert ops_of(whole).count("Sigmoid") == 2
    x = X.astype(np.float64)
    half = x / (1 + np.exp(-2 * x))
    np.testing.assert_allclose(answers(whole, {"x": X})[0], half / (1 + np.exp(-half)) + x, rtol=1e-5)


def test_a_body_that_differs_from_numpy_is_told(source: Path, ops: Path, tmp_path: Path) -> None:
    ops.write_text(SOURCE.replace("np.exp(-beta * x)", "np.exp(-3 * x)"))
    target = tmp_path / "whole.onnx"
    with pytest.raises(
        InvalidArgumentError, match="Swish 'a': custom operator 'my.domain::Swish', .* between its body and"
    ):
        triune.convert(source, target, custom_ops=ops, verify=True, inputs={"x": X})
    assert not target.exists()


def test_what_only_numpy_computes_is_refused_with_the_remedy(source: Path, ops: Path, tmp_path: Path) -> None:
    source.write_bytes(in_numpy().SerializeToString())
    with pytest.raises(
        UnsupportedError, match="a conversion to .mlpackage needs .*'cpu': my.domain::Ranks 'order'; give"
    ):
        triune.convert(source, tmp_path / "model.mlpackage", custom_ops=ops, shapes=SHAPES)


def test_an_operator_without_any_definition_names_the_option(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    with pytest.raises(UnsupportedError, match=r"what it computes is not known here; .* \(--custom-ops\)"):
        triune.convert(source, tmp_path / "model.mlpackage", shapes=SHAPES)


def test_a_function_of_the_model_comes_first_and_that_is_told(
    ops: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = """<ir_version: 10, opset_import: ["" : 20, "my.domain" : 1]>
        g (float[2,3] x) => (float[2,3] y) { y = my.domain.Swish (x) }
        <domain: "my.domain", opset_import: ["" : 20]> Swish (a) => (b) { b = Neg (a) }"""
    source, target = tmp_path / "own.onnx", tmp_path / "whole.onnx"
    onnx.save(onnx.parser.parse_model(text), source)
    done = triune.convert(source, target, custom_ops=ops)
    told = "the model has functions of its own called 'my.domain::Swish': these compute, not the custom operators"
    assert told in done.notes
    np.testing.assert_array_equal(answers(onnx.load(target), {"x": X})[0], -X)
    with triune.load(source, "cpu", custom_ops=ops) as model:
        np.testing.assert_array_equal(model.predict({"x": X})["y"], -X)
    assert told in caplog.text
