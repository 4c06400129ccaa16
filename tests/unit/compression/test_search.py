"""The fewest layers that must stay precise."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.compressible import matrix, perceptron
from triune.compression.accuracy import Accuracy
from triune.compression.options import Options, Per, WeightForm
from triune.compression.plan import Plan
from triune.compression.search import Comparison, agreement_of, search, sensitivities
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
    assert found.returned == {"first": "floats"}
    assert found.forms == {"second": WeightForm.INT8}
    assert agreement_of(found.outputs) == without
    again = search(plan, WeightForm.INT8, comparison, (everything + without) / 2, silent)
    assert (again.returned, again.sensitivity) == (found.returned, found.sensitivity)


def test_what_cannot_be_kept_is_said(plan: Plan) -> None:
    found = search(plan, WeightForm.INT8, Comparison(plan, SAMPLES), 1.0, silent)
    assert not found.holds
    assert len(found.returned) == 1


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
