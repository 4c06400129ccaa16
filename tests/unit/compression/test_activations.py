"""Activations of 8 bits: ranges, and the model that ONNX Runtime's quantizer makes of them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from support.compressible import matrix, model_of, perceptron, run
from support.graphs import ops_of
from triune.compression.activations import centred
from triune.compression.observer import Range, observe
from triune.compression.options import Activations, Calibration, Options, WeightForm
from triune.compression.plan import Plan
from triune.compression.prepare import prepare
from triune.core.errors import InvalidArgumentError
from triune.graph.load import load
from triune.graph.passes.infer import Infer
from triune.graph.weight_files import WeightFile, array_of, with_data

SAMPLES = [{"x": matrix(4, 64, seed)} for seed in (10, 11)]
INT8 = Options(WeightForm.INT8, activations=Activations.INT8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.onnx"
    onnx.save(perceptron(), path)
    return path


def observed(path: Path, names: list[str], calibration: Calibration) -> dict[str, Range]:
    with WeightFile() as file:
        return observe(Infer()(prepare(load(path), file)), names, SAMPLES, calibration)


def test_the_smallest_and_the_largest_value_of_all_samples_are_the_range(source: Path) -> None:
    found = observed(source, ["x", "a"], Calibration.MINMAX)
    whole = np.concatenate([each["x"] for each in SAMPLES])
    assert found["x"] == Range(float(whole.min()), float(whole.max()))
    products = whole @ matrix(64, 64)
    assert np.isclose([found["a"].low, found["a"].high], [products.min(), products.max()], rtol=1e-5).all()


@pytest.mark.parametrize("calibration", [Calibration.PERCENTILE, Calibration.ENTROPY])
def test_other_ranges_are_within_the_values(source: Path, calibration: Calibration) -> None:
    widest = observed(source, ["x", "a"], Calibration.MINMAX)
    for name, found in observed(source, ["x", "a"], calibration).items():
        assert widest[name].low <= found.low < 0 < found.high <= widest[name].high


def test_one_wild_value_does_not_widen_the_range_of_entropy(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron(), path)
    wild = matrix(200, 64, 3)
    wild[0, 0] = 100.0
    with WeightFile() as file:
        model = Infer()(prepare(load(path), file))
        found = observe(model, ["x"], [{"x": wild}], Calibration.ENTROPY)
    assert found["x"].high < 50


def test_values_that_are_no_numbers_have_no_range(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    nodes = [helper.make_node("Log", ["x"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    onnx.save(model_of(nodes, {"x": (TensorProto.FLOAT, ["n", 64])}, ["y"], {"w": matrix(64, 64)}), path)
    with pytest.raises(InvalidArgumentError, match="NaN or infinities in 'a'"):
        observed(path, ["a"], Calibration.MINMAX)


def test_products_have_the_scales_of_their_ranges(source: Path) -> None:
    with WeightFile() as file:
        plan = Plan(load(source), INT8, SAMPLES, file, is_standard=False)
        assert list(plan.layers) == ["one", "two"]
        model = plan.build(plan.everything(WeightForm.INT8)).model
    assert ops_of(model).count("QuantizeLinear") == 2
    tensors = {each.name: array_of(each) for each in model.graph.initializer}
    first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "x")
    low, high = (float(getattr(np.concatenate([e["x"] for e in SAMPLES]), end)()) for end in ("min", "max"))
    # The values are nearly as far below 0 as above it.
    assert np.isclose(tensors[first.input[1]], max(-low / 128, high / 127), rtol=1e-6)
    assert tensors[first.input[2]] == 128
    weight = next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0].startswith("first"))
    assert np.allclose(tensors[weight.input[1]], np.abs(matrix(64, 64)).max(axis=0) / 127, rtol=1e-3)
    (expected,), (found,) = run(perceptron(), SAMPLES[0]), run(model, SAMPLES[0])
    assert 0 < np.abs(found - expected).max() < 0.04 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-4.0, 4.0, Range(-4.0 * 128 / 127, 4.0)),
        (-4.0, 3.0, Range(-4.0, 4.0 * 127 / 128)),
        (-2.0, 2.9, Range(-2.9 * 128 / 127, 2.9)),
        (-2.0, 3.1, None),
        (-3.1, 2.0, None),
        (0.0, 6.0, None),
        (-2.0, -1.0, None),
        (1.0, 2.0, None),
        (0.0, 0.0, None),
    ],
)
def test_a_range_that_is_nearly_symmetric_has_the_zero_point_128(
    low: float, high: float, expected: Range | None
) -> None:
    found = centred(Range(low, high))
    if expected is None:
        assert found == Range(low, high)
        return
    assert np.allclose([found.low, found.high], [expected.low, expected.high])
    assert found.low <= low
    assert found.high >= high
    assert round(-found.low / ((found.high - found.low) / 255)) == 128


def test_only_the_layers_that_are_named_are_quantized(source: Path) -> None:
    with WeightFile() as file:
        plan = Plan(load(source), INT8, SAMPLES, file, is_standard=False)
        model = plan.build({"two": WeightForm.INT8}).model
    assert ops_of(model).count("QuantizeLinear") == 1
    # The nodes are in an order in which each value is computed before it is read.
    onnx.checker.check_model(model, full_check=True)
    assert any(each.name == "first" and each.data_type == TensorProto.FLOAT for each in model.graph.initializer)


def test_activations_that_are_always_zero_have_no_range() -> None:
    """With a range of 0 to 0 all other numbers became 0, and the agreement on the samples was 100%."""
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], name="one"),
        helper.make_node("MatMul", ["z", "second"], ["b"], name="two"),
        helper.make_node("Add", ["a", "b"], ["y"], name="sum"),
    ]
    inputs = {name: (TensorProto.FLOAT, ["n", 64]) for name in "xz"}
    weights = {"first": matrix(64, 64), "second": matrix(64, 64, 1)}
    source = model_of(nodes, inputs, ["y"], weights)
    samples = [{**each, "z": np.zeros((4, 64), np.float32)} for each in SAMPLES]
    with WeightFile() as file:
        plan = Plan(source, INT8, samples, file, is_standard=False)
        assert (list(plan.layers), plan.unranged) == (["second", "one"], ("two",))
        model = plan.build(plan.everything(WeightForm.INT8)).model
    assert ops_of(model).count("QuantizeLinear") == 1
    given = {"x": samples[0]["x"], "z": matrix(4, 64, 5)}
    (found,) = run(model, given)
    wanted = given["x"] @ weights["first"] + given["z"] @ weights["second"]
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()


def test_a_model_that_is_quantized_already_is_refused(source: Path, tmp_path: Path) -> None:
    for activations in Activations:
        options = Options(WeightForm.INT8, activations=activations)
        with WeightFile() as file:
            plan = Plan(load(source), options, SAMPLES, file, is_standard=False)
            onnx.save(plan.build(plan.everything(WeightForm.INT8)).model, tmp_path / "again.onnx")
            with pytest.raises(InvalidArgumentError, match="activations are quantized already"):
                Plan(load(tmp_path / "again.onnx"), INT8, SAMPLES, file, is_standard=False)


def test_scales_after_convolutions_do_not_come_between_quantized_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def kernel(inputs: int) -> NDArray[np.float32]:
        return rng.standard_normal((16, inputs, 3, 3)).astype(np.float32)

    def conv(x: str, weight: str, result: str) -> NodeProto:
        return helper.make_node("Conv", [x, weight], [result], name=result, pads=[1] * 4)

    moments = {name: rng.uniform(0.5, 2, 16).astype(np.float32) for name in ("scale", "shift", "mean", "variance")}
    nodes = [
        conv("x", "first", "a"),
        helper.make_node("BatchNormalization", ["a", *moments], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        conv("c", "second", "d"),
        helper.make_node("Mul", ["d", "half"], ["e"]),
        helper.make_node("Add", ["e", "c"], ["f"]),
        helper.make_node("Relu", ["f"], ["y"]),
    ]
    weights = {"first": kernel(8), "second": kernel(16), "half": np.array(0.5, np.float32), **moments}
    source = model_of(nodes, {"x": (TensorProto.FLOAT, ["n", 8, 6, 6])}, ["y"], weights)
    onnx.save(source, tmp_path / "model.onnx")
    samples = [{"x": rng.standard_normal((2, 8, 6, 6)).astype(np.float32)}]
    with WeightFile() as file:
        plan = Plan(load(tmp_path / "model.onnx"), INT8, samples, file, is_standard=False)
        model = with_data(plan.build(plan.everything(WeightForm.INT8)).model)
    # Each Relu is the lower bound of the levels of 8 bits.
    assert set(ops_of(model)) - {"QuantizeLinear", "DequantizeLinear"} == {"Conv", "Add"}
    (expected,), (found,) = run(source, samples[0]), run(model, samples[0])
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()
