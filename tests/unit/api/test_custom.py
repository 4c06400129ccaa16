"""Conversions of models with custom operators."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import triune
from support.custom_ops import SOURCE, in_numpy, with_body, with_weights
from support.graphs import answers, ops_of
from support.repositories import write_model
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.verify import Verdict
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.tuning.measurement import Measurement
from triune.tuning.trial import Subject, measure

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


def test_graphs_around_numpy_are_optimized(tmp_path: Path, ops: Path) -> None:
    source, target = tmp_path / "numpy.onnx", tmp_path / "optimized.onnx"
    source.write_bytes(in_numpy().SerializeToString())
    done = triune.optimize(source, target, level="O3", custom_ops=ops)
    assert [each.verdict for each in done.outputs] == [Verdict.RIGHT] * 2
    kinds = ops_of(onnx.load(target))
    assert kinds.count("Ranks") == 1
    assert kinds.count("Sigmoid") == 2
    assert not {"Swish", "Neg"}.intersection(kinds)
    _require_same(source, target, ops, {"x": X})


def _require_same(source: Path, target: Path, ops: Path, inputs: dict[str, np.ndarray], within: float = 1e-5) -> None:
    results = []
    for path in (source, target):
        with triune.load(path, "cpu", custom_ops=ops) as model:
            results.append(model.run(inputs))
    for name, before in results[0].items():
        assert np.abs(results[1][name] - before).mean() <= within * np.abs(before).mean()


FORMS = [
    {"weights": "int8"},
    {"weights": "int8", "activations": "int8"},
    {"weights": "int8", "activations": "int8", "method": "smoothquant"},
    {"weights": "int4", "group": 32, "method": "gptq", "opset": 17},
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("op", ["Swish", "Sorted"])
def test_models_with_custom_operators_are_compressed(tmp_path: Path, ops: Path, op: str, form: dict[str, Any]) -> None:
    source, target = tmp_path / "model.onnx", tmp_path / "small.onnx"
    source.write_bytes(with_weights(op, opset=form.get("opset", 21)).SerializeToString())
    samples = np.random.default_rng(0).standard_normal((16, 64)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=samples)
    chosen = {name: value for name, value in form.items() if name != "opset"}
    done = triune.compress(source, target, calibrate=tmp_path / "samples.npz", custom_ops=ops, **chosen)
    assert done.report.agreement > 0.97
    assert {each.form for each in done.report.layers} == {form["weights"]}
    assert ops_of(onnx.load(target)).count("Sorted") == (op == "Sorted")
    _require_same(source, target, ops, {"x": samples}, 0.25 if form["weights"] == "int4" else 0.05)


def test_programs_take_no_numpy(tmp_path: Path, ops: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(with_weights("Sorted").SerializeToString())
    with pytest.raises(
        UnsupportedError, match=r"a compression to .mlpackage needs custom operators with a body .* give"
    ):
        triune.compress(source, tmp_path / "small.mlpackage", weights="int8", custom_ops=ops)
    with pytest.raises(UnsupportedError, match="a plan needs custom operators with a body"):
        triune.plan(source, chip="m2-pro", custom_ops=ops)


def test_bodies_are_planned(source: Path, ops: Path) -> None:
    (plan,) = triune.plan(source, chip="m2-pro", shapes={"x": "2,3"}, custom_ops=ops)
    assert [each.op_type for each in plan.ops].count("Sigmoid") == 2


def test_unknown_operators_name_the_option(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "other.onnx"
    for work in (
        lambda: triune.optimize(source, target),
        lambda: triune.compress(source, target, weights="int8"),
        lambda: triune.plan(source, chip="m2-pro"),
    ):
        with pytest.raises(UnsupportedError, match=r"what operator 'my.domain::Swish' computes, .* --custom-ops"):
            work()
    assert not target.exists()


@pytest.mark.parametrize("level", ["", 'parameters { key: "optimization_level" value { string_value: "O2" } }'])
def test_models_with_numpy_are_tuned(tmp_path: Path, ops: Path, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path / "cache"))
    folder = write_model(tmp_path / "models", "numpy", f"max_batch_size: 8 {level}", v1=in_numpy().SerializeToString())
    subjects: list[Subject] = []

    class InThisProcess:
        """Trials without a time limit, which measure the given config alone."""

        def __init__(self, subject: Subject) -> None:
            subjects.append(pickle.loads(pickle.dumps(subject)))
            self._found: Measurement | None = None

        def measure(self, message: ModelConfigMessage, seconds: float, limit_seconds: float) -> Measurement:
            self._found = self._found or measure(subjects[0], message, 0.05)
            return self._found

        def close(self) -> None: ...

    monkeypatch.setattr("triune.api.tuning.Trials", InThisProcess)
    found = triune.tune(folder, callers=[1], custom_ops=ops)
    assert found.tried[0].rank is not None
    assert not found.tried[0].measurement.failure
