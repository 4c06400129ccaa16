"""The fewest layers that must stay precise."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from support.compressible import matrix, model_of, perceptron
from triune.api.compressing.results import require_agreement
from triune.compression.accuracy import Accuracy
from triune.compression.options import Options, Per, WeightForm
from triune.compression.plan import Plan
from triune.compression.search import Comparison, agreement_of, search, sensitivities
from triune.core.errors import UnsupportedError
from triune.graph.load import load
from triune.graph.weight_files import WeightFile

SAMPLES = [{"x": matrix(8, 64, seed)} for seed in (10, 11)]
for sample in SAMPLES:
    # What the large number of `plan` multiplies.
    sample["x"][:, 0] = 0


def silent(what: str) -> None:
    del what


@pytest.fixture
def plan(tmp_path: Path) -> Generator[Plan]:
    # One scale for a matrix with one large number leaves nothing of the others.
    first = matrix(64, 64)
    first[0, 0] = 1000
    path = tmp_path / "model.onnx"
    onnx.save(perceptron(first=first), path)
    with WeightFile() as file:
        yield Plan(load(path), Options(WeightForm.INT8, per=Per.TENSOR), [], file, is_standard=False)


def test_the_sensitive_layer_goes_back(plan: Plan) -> None:
    comparison = Comparison(plan, SAMPLES)
    alone = sensitivities(plan, WeightForm.INT8, comparison, silent)
    assert alone["first"] < 1 < 30 < alone["second"]
    without = agreement_of(comparison.outputs_of(plan.build({"second": WeightForm.INT8})))
    everything = agreement_of(comparison.outputs_of(plan.build(plan.everything(WeightForm.INT8))))
    assert everything < without
    found = search(plan, WeightForm.INT8, comparison, (everything + without) / 2, silent)
    assert found.holds
    assert found.returned == {"first": "fp16"}
    assert found.forms == {"first": WeightForm.FP16, "second": WeightForm.INT8}
    assert agreement_of(found.outputs) == pytest.approx(without, rel=1e-6)
    again = search(plan, WeightForm.INT8, comparison, (everything + without) / 2, silent)
    assert (again.returned, again.sensitivity) == (found.returned, found.sensitivity)


def test_what_cannot_be_kept_is_said(plan: Plan) -> None:
    found = search(plan, WeightForm.INT8, Comparison(plan, SAMPLES), 1.0, silent)
    assert not found.holds
    # The last step but one: without any compressed layer there is nothing to write.
    assert found.returned == {"first": "fp16", "second": "floats"}


def test_nothing_is_searched_where_all_layers_hold(plan: Plan) -> None:
    found = search(plan, WeightForm.INT8, Comparison(plan, SAMPLES), -1.0, silent)
    assert found.holds
    assert (found.returned, found.sensitivity) == ({}, {})


def test_four_bits_go_back_to_eight_before_floats(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron(), path)
    with WeightFile() as file:
        plan = Plan(load(path), Options(WeightForm.INT4, group=32), [], file, is_standard=False)
        comparison = Comparison(plan, SAMPLES)
        found = search(plan, WeightForm.INT4, comparison, 0.9999, silent)
        assert found.holds
        assert set(found.returned.values()) == {"int8"}
        assert set(found.forms.values()) <= {WeightForm.INT4, WeightForm.INT8}
        assert set(found.forms) == {"first", "second"}


def test_one_layer_goes_back_to_floats_while_others_keep_four_bits(tmp_path: Path) -> None:
    """A model of four layers, of which one computes what all others only add a little to."""
    nodes = [helper.make_node("MatMul", ["x", f"w{index}"], [f"y{index}"], name=f"n{index}") for index in range(4)]
    nodes.append(helper.make_node("Sum", [f"y{index}" for index in range(4)], ["y"], name="sum"))
    # In the first a group has one large number: 4 bits and 8 leave nothing of the others.
    first = matrix(64, 64)
    first[0] = 3e4
    weights = {"w0": first, **{f"w{index}": 1e-2 * matrix(64, 64, index) for index in range(1, 4)}}
    path = tmp_path / "model.onnx"
    onnx.save(model_of(nodes, {"x": (TensorProto.FLOAT, ["n", 64])}, ["y"], weights), path)
    with WeightFile() as file:
        plan = Plan(load(path), Options(WeightForm.INT4, group=32), [], file, is_standard=False)
        found = search(plan, WeightForm.INT4, Comparison(plan, SAMPLES), 0.999, silent)
    assert found.holds
    assert found.returned == {"w0": "fp16"}
    assert found.forms == {"w0": WeightForm.FP16} | dict.fromkeys(("w1", "w2", "w3"), WeightForm.INT4)


def test_weights_beyond_fp16_go_back_to_bf16(tmp_path: Path) -> None:
    large = matrix(64, 64)
    large[0] = 1e6
    path = tmp_path / "model.onnx"
    onnx.save(perceptron(first=large), path)
    with WeightFile() as file:
        plan = Plan(load(path), Options(WeightForm.INT4, group=32), [], file, is_standard=False)
        assert list(plan.rungs("first")) == [WeightForm.INT4, WeightForm.INT8, WeightForm.BF16, None]
        assert list(plan.rungs("second")) == [WeightForm.INT4, WeightForm.INT8, WeightForm.FP16, None]
        built = plan.build({"first": WeightForm.BF16, "second": WeightForm.INT4})
        assert built.changes["first"].sqnr_db > 40
        assert agreement_of(Comparison(plan, SAMPLES).outputs_of(built)) > 0.9


@pytest.mark.parametrize(
    ("options", "least"),
    [
        (Options(WeightForm.PALETTE, bits=3), 0.999),
        (Options(WeightForm.PALETTE, bits=3, group=48), 0.999),
        (Options(WeightForm.SPARSE, sparsity=0.5), 0.999),
        (Options(WeightForm.SPARSE, n_m=(1, 4)), 0.999),
    ],
)
@pytest.mark.parametrize("is_standard", [False, True])
def test_a_single_palette_or_zeros_go_back_to_eight_bits(
    options: Options, least: float, is_standard: bool, tmp_path: Path
) -> None:
    """A layer that went back has all of its weights, and the groups of a palette are none of integers."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="one")]
    path = tmp_path / "model.onnx"
    onnx.save(model_of(nodes, {"x": (TensorProto.FLOAT, ["n", 64])}, ["y"], {"w": matrix(64, 48)}), path)
    with WeightFile() as file:
        plan = Plan(load(path), options, [], file, is_standard=is_standard)
        found = search(plan, options.weights, Comparison(plan, SAMPLES), least, silent)
    assert found.holds
    assert found.returned == {"w": "int8"}
    assert found.built.changes["w"].sqnr_db > 30


def test_zeros_of_an_operator_set_without_scales_go_back_to_16_bits(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron(opset=11), path)
    with WeightFile() as file:
        plan = Plan(load(path), Options(WeightForm.SPARSE, sparsity=0.5), [], file, is_standard=False)
        assert list(plan.rungs("first")) == [WeightForm.SPARSE, WeightForm.FP16, None]


def test_layers_that_went_back_to_another_form_count_once(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron(), path)
    with WeightFile() as file:
        plan = Plan(load(path), Options(WeightForm.PALETTE, bits=1), [], file, is_standard=False)
        found = search(plan, WeightForm.PALETTE, Comparison(plan, SAMPLES), 1.0, silent)
    with pytest.raises(UnsupportedError, match="with 2 of 2 layers in higher precision"):
        require_agreement(found, found.outputs, 1.0, is_searched=True, force=False)


def test_accuracy_is_what_its_formulas_say() -> None:
    accuracy = Accuracy()
    accuracy.add({"y": np.array([[3.0, 4.0]], np.float32)}, {"y": np.array([[4.0, 3.0]], np.float32)})
    (found,) = accuracy.outputs()
    assert found.cosine == pytest.approx(24 / 25)
    assert (found.largest, found.largest_error, found.mean_error) == (4.0, 1.0, 1.0)
    assert found.sqnr_db == pytest.approx(10 * np.log10(25 / 2))
    assert (found.top1, found.is_classes, found.measure) == (0.0, False, "cosine")


def test_probabilities_agree_by_their_largest() -> None:
    accuracy = Accuracy()
    accuracy.add({"y": np.array([[0.6, 0.4], [0.1, 0.9]])}, {"y": np.array([[0.51, 0.49], [0.6, 0.4]])})
    (found,) = accuracy.outputs()
    assert (found.agreement, found.measure) == (0.5, "top-1")


def test_integers_agree_where_they_are_equal_and_nan_agrees_never() -> None:
    accuracy = Accuracy()
    accuracy.add(
        {"label": np.array([1, 2, 3, 4]), "y": np.array([1.0, 2.0])},
        {"label": np.array([1, 2, 3, 5]), "y": np.array([1.0, np.nan])},
    )
    label, y = accuracy.outputs()
    assert (label.agreement, label.measure) == (0.75, "equal elements")
    assert (y.agreement, y.is_finite) == (0.0, False)
