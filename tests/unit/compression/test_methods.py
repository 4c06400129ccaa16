"""GPTQ, AWQ and SmoothQuant in whole models: inputs of real transformers have a few channels of large values."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

import triune
from support.compressible import matrix, model_of
from support.graphs import ops_of
from triune.compression.moments import Moments
from triune.compression.options import Activations, Method, Options, WeightForm
from triune.compression.plan import Plan
from triune.compression.search import Comparison
from triune.compression.smooth import smooth
from triune.core.errors import InvalidArgumentError
from triune.graph.load import load
from triune.graph.weight_files import WeightFile, with_data


def inputs(seed: int, rows: int = 64) -> dict[str, Any]:
    """Channels that go together, three of them with large values."""
    x = matrix(rows, 12, seed) @ matrix(12, 64, 99) + 0.3 * matrix(rows, 64, seed + 1)
    x[:, (3, 17, 40)] *= 40
    return {"x": x}


def network() -> ModelProto:
    """Two products of one value, as queries and keys have it, a third of their sum by Gemm, and a last MatMul."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="query"),
        helper.make_node("MatMul", ["x", "b"], ["q"], name="key"),
        helper.make_node("Add", ["p", "q"], ["s"], name="add"),
        helper.make_node("Relu", ["s"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "c", "bias"], ["g"], name="gemm", transB=1),
        helper.make_node("MatMul", ["g", "d"], ["y"], name="last"),
    ]
    weights = {"a": matrix(64, 96), "b": matrix(64, 96, 1), "c": matrix(48, 96, 2), "d": matrix(48, 32, 3)}
    weights["bias"] = matrix(1, 48, 4)[0]
    return model_of(nodes, {"x": (TensorProto.FLOAT, ["n", 64])}, ["y"], weights)


def noise(options: Options, folder: Path, calibration: Sequence[dict[str, Any]]) -> tuple[float, list[str], Plan]:
    """The relative square error of the output on inputs that calibration has not seen, the operators, and the plan."""
    path = folder / "model.onnx"
    onnx.save(network(), path)
    with WeightFile() as file:
        plan = Plan(load(path), options, calibration, file, is_standard=False)
        built = plan.build(plan.everything(options.weights))
        (output,) = Comparison(plan, [inputs(7), inputs(8)]).outputs_of(built)
        return 10 ** (-output.sqnr_db / 10), ops_of(built.model), plan


CALIBRATION = [inputs(seed) for seed in range(20, 28)]
WEIGHTS = [
    Options(WeightForm.INT4, group=32),
    Options(WeightForm.INT4, group=64, is_symmetric=False),
    Options(WeightForm.INT8),
]


@pytest.mark.parametrize("method", [Method.GPTQ, Method.AWQ])
@pytest.mark.parametrize("options", WEIGHTS)
def test_weights_lose_less(options: Options, method: Method, tmp_path: Path) -> None:
    nearest, ops, _ = noise(options, tmp_path, CALIBRATION)
    found, others, plan = noise(replace(options, method=method), tmp_path, CALIBRATION)
    assert found < (0.75 if method is Method.GPTQ else 0.95) * nearest
    if method is Method.GPTQ:
        assert others == ops
    else:
        # One multiplication for each value that is scaled, however many products read it.
        assert 0 < others.count("Mul") == len(plan.scaled) <= 3


@pytest.mark.parametrize("options", WEIGHTS)
def test_awq_and_gptq_together_scale_and_make_up_for_errors(options: Options, tmp_path: Path) -> None:
    scaled, ops, _ = noise(replace(options, method=Method.AWQ), tmp_path, CALIBRATION)
    both, others, plan = noise(replace(options, method=Method.AWQ_GPTQ), tmp_path, CALIBRATION)
    assert others == ops
    assert 0 < others.count("Mul") == len(plan.scaled)
    assert both < 0.75 * scaled


@pytest.mark.parametrize("activations", list(Activations))
def test_activations_lose_less_when_they_are_smooth(activations: Activations, tmp_path: Path) -> None:
    options = Options(WeightForm.INT8, activations=activations)
    nearest, _, _ = noise(options, tmp_path, CALIBRATION)
    smoothed = Options(WeightForm.INT8, activations=activations, method=Method.SMOOTHQUANT)
    found, _, plan = noise(smoothed, tmp_path, CALIBRATION)
    assert found < 0.5 * nearest
    (site, scaling), *_ = plan.scaled.items()
    assert site.value == "x"
    assert site.weights == ("a", "b")
    assert scaling.after < 0.9 * scaling.before
    large = scaling.scales[[3, 17, 40]]
    assert large.min() > 3 * np.delete(scaling.scales, [3, 17, 40]).max()


def test_inputs_that_are_alike_are_not_scaled() -> None:
    moments = Moments(64)
    moments.add(np.random.default_rng(0).uniform(-1, 1, (4096, 64)))
    found = smooth([matrix(32, 64)], moments, lambda rows: rows)
    assert found.exponent == 0
    assert found.before == found.after


def test_channels_without_variance(tmp_path: Path) -> None:
    """Channels that are always 0, or always the same, in all methods."""
    samples = [{"x": np.tile(np.where(np.arange(64) % 2, 0, 3).astype(np.float32), (8, 1))} for _ in range(4)]
    for options in (
        Options(WeightForm.INT4, group=32, method=Method.GPTQ),
        Options(WeightForm.INT4, group=32, method=Method.AWQ),
        Options(WeightForm.INT4, group=32, method=Method.AWQ_GPTQ),
        Options(WeightForm.INT8, activations=Activations.INT8, method=Method.SMOOTHQUANT),
    ):
        with WeightFile() as file:
            onnx.save(network(), tmp_path / "model.onnx")
            plan = Plan(load(tmp_path / "model.onnx"), options, samples, file, is_standard=False)
            (output,) = Comparison(plan, samples).outputs_of(plan.build(plan.everything(options.weights)))
        assert output.is_finite
        assert output.agreement > 0.95


def test_inputs_whose_squares_overflow_teach_nothing(tmp_path: Path) -> None:
    samples = [{"x": np.full((8, 64), 1e30, np.float32)}]
    found: list[ModelProto] = []
    for method in (Method.NEAREST, Method.GPTQ, Method.AWQ, Method.AWQ_GPTQ):
        options = Options(WeightForm.INT4, group=32, method=method)
        with WeightFile() as file:
            onnx.save(network(), tmp_path / "model.onnx")
            plan = Plan(load(tmp_path / "model.onnx"), options, samples, file, is_standard=False)
            found.append(with_data(plan.build(plan.everything(options.weights)).model))
    assert all(each == found[0] for each in found)


def test_best_reports_what_it_tried(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=np.stack([each["x"] for each in CALIBRATION]))
    given: dict[str, Any] = {"calibrate": tmp_path / "x.npz", "method": "best"}
    report = triune.compress(tmp_path / "model.onnx", tmp_path / "a.onnx", weights="int4", group=32, **given).report
    assert [each.name for each in report.methods] == ["nearest", "gptq", "awq", "awq-gptq"]
    best = max(report.methods, key=lambda each: each.agreement)
    assert best.is_kept
    assert best.name != "nearest"
    assert report.agreement == pytest.approx(best.agreement, rel=1e-6)
    assert f"by {best.name}" in report.form
    report = triune.compress(
        tmp_path / "model.onnx", tmp_path / "b.onnx", weights="int8", activations="int8", **given
    ).report
    assert [(each.name, each.is_kept) for each in report.methods] == [("nearest", False), ("smoothquant", True)]
    assert any(note.startswith("smoothquant scales the inputs of") for note in report.notes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": Method.SMOOTHQUANT}, "give --activations"),
        ({"method": Method.GPTQ, "activations": Activations.INT8}, "quantizer finds them"),
        ({"method": Method.GPTQ, "sparsity": 0.5}, "without zeros"),
    ],
)
def test_methods_that_do_not_apply_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Options(WeightForm.INT8, **wrong)
