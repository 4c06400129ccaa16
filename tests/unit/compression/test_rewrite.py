"""Compressed weights in a graph: what each form stores, and that ONNX Runtime computes with it what it stands for."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from support.compressible import matrix, model_of, perceptron, run
from support.graphs import ops_of
from triune.compression.options import Activations, Options, Per, WeightForm
from triune.compression.plan import Built, Plan
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.load import load
from triune.graph.weight_files import WeightFile, array_of, with_data

X = {"x": matrix(5, 64, 9)}


def built(
    model: ModelProto, options: Options, folder: Path, *, is_standard: bool = False
) -> tuple[ModelProto, Plan, Built]:
    path = folder / "source.onnx"
    onnx.save(model, path)
    with WeightFile() as file:
        plan = Plan(load(path), options, [], file, is_standard=is_standard)
        result = plan.build(plan.everything(options.weights))
        return with_data(result.model), plan, result


def relative(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(one - other).max() / np.abs(one).max())


FORMS = {
    "int8": (Options(WeightForm.INT8), ["DequantizeLinear", "DequantizeLinear", "MatMul", "Relu", "MatMul"], 0.02),
    "one scale": (Options(WeightForm.INT8, per=Per.TENSOR, is_symmetric=False), None, 0.03),
    "int8 in groups": (Options(WeightForm.INT8, group=32), None, 0.02),
    "int4": (Options(WeightForm.INT4), ["DequantizeLinear", "DequantizeLinear", "MatMul", "Relu", "MatMul"], 0.3),
    "int4 in groups": (Options(WeightForm.INT4, group=32), ["MatMulNBits", "Relu", "MatMulNBits"], 0.3),
    "int4 with zero points": (Options(WeightForm.INT4, group=64, is_symmetric=False), None, 0.3),
    "palette": (Options(WeightForm.PALETTE, bits=6), None, 0.2),
    "palettes": (Options(WeightForm.PALETTE, bits=4, group=8), None, 0.3),
    "dynamic": (Options(WeightForm.INT8, activations=Activations.DYNAMIC), None, 0.05),
    "fp16": (Options(WeightForm.FP16), ["Cast", "Cast", "MatMul", "Relu", "MatMul"], 1e-3),
    "bf16": (Options(WeightForm.BF16), None, 0.01),
    "sparse": (Options(WeightForm.SPARSE, sparsity=0.1), ["MatMul", "Relu", "MatMul"], 0.1),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("opset", [17, 21])
def test_forms_compute_nearly_the_same(name: str, opset: int, tmp_path: Path) -> None:
    options, ops, allowed = FORMS[name]
    source = perceptron(opset=opset)
    model, _, result = built(source, options, tmp_path)
    (expected,), (found,) = run(source, X), run(model, X)
    assert 0 < relative(expected, found) < allowed
    if ops is not None:
        assert ops_of(model) == ops
    assert set(result.changes) == {"first", "second"}
    assert all(change.sqnr_db > 15 for change in result.changes.values())


@pytest.mark.parametrize("name", ["int8", "int4 in groups", "palette"])
def test_files_shrink_by_the_bits(name: str, tmp_path: Path) -> None:
    options, _, _ = FORMS[name]
    source = perceptron(first=matrix(256, 256), second=matrix(256, 256, 1))
    source.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 256
    model, _, _ = built(source, options, tmp_path)
    most = {"int8": 0.27, "int4 in groups": 0.18, "palette": 0.27}[name]
    assert model.ByteSize() < most * source.ByteSize()


def test_a_transposed_weight_is_stored_in_the_order_of_its_reader(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    source = model_of(nodes, {"x": (TensorProto.FLOAT, ["n", 64])}, ["y"], {"w": matrix(32, 64)})
    model, _, _ = built(source, Options(WeightForm.INT4, group=32), tmp_path)
    assert ops_of(model) == ["MatMulNBits"]
    assert relative(run(source, X)[0], run(model, X)[0]) < 0.3


def tied() -> ModelProto:
    """A table that Gather reads, and a product of its transpose."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["rows", "turned"], ["y"]),
    ]
    return model_of(nodes, {"ids": (TensorProto.INT64, ["n"])}, ["rows", "y"], {"table": matrix(50, 32)})


@pytest.mark.parametrize("name", ["int8", "int4", "palette", "sparse"])
def test_a_weight_that_is_used_twice_stays_one_weight(name: str, tmp_path: Path) -> None:
    options, _, allowed = FORMS[name]
    source = tied()
    model, plan, _ = built(source, options, tmp_path)
    assert list(plan.layers) == ["table"]
    ids = {"ids": np.array([3, 0, 49])}
    rows, y = run(model, ids)
    assert relative(run(source, ids)[0], rows) < allowed
    # The product has the same table as the rows: their squares are its diagonal.
    assert np.allclose([y[0, 3], y[1, 0], y[2, 49]], np.sum(rows * rows, axis=1), rtol=1e-4)


@pytest.mark.parametrize("is_symmetric", [True, False])
def test_rows_that_are_looked_up_alone_are_dequantized_alone(is_symmetric: bool, tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    source = model_of(nodes, {"ids": (TensorProto.INT64, ["n", "m"])}, ["y"], {"table": matrix(50, 32) + 1})
    model, _, _ = built(source, Options(WeightForm.INT8, is_symmetric=is_symmetric), tmp_path)
    assert "DequantizeLinear" not in ops_of(model)
    ids = {"ids": np.array([[3, 0], [49, 1]])}
    (expected,), (found,) = run(source, ids), run(model, ids)
    assert relative(expected, found) < 0.01
    # A program holds the whole table quantized.
    assert ops_of(built(source, Options(WeightForm.INT8), tmp_path, is_standard=True)[0]) == [
        "DequantizeLinear",
        "Gather",
    ]


def test_groups_that_do_not_divide_become_channels_and_this_is_said(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)]
    source = model_of(nodes, {"x": (TensorProto.FLOAT, ["n", 72])}, ["y"], {"w": matrix(24, 72)})
    model, _, result = built(source, Options(WeightForm.INT4, group=64), tmp_path)
    assert result.changes["w"].note == "a scale for each channel: groups of 64 do not divide its 72 input channels"
    x = {"x": matrix(5, 72, 9)}
    assert relative(run(source, x)[0], run(model, x)[0]) < 0.3
    # A product's last group is shorter instead.
    source = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (TensorProto.FLOAT, ["n", 72])}, ["y"],
        {"w": matrix(72, 24)},
    )  # fmt: skip
    model, _, result = built(source, Options(WeightForm.INT4, group=64), tmp_path)
    assert result.changes["w"].note == "the last group has 8 weights"
    assert relative(run(source, x)[0], run(model, x)[0]) < 0.3


def test_convolutions_have_a_scale_for_each_output_channel(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).standard_normal((16, 8, 3, 3)).astype(np.float32)
    turned = np.random.default_rng(1).standard_normal((16, 8, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["a", "turned"], ["y"], pads=[1, 1, 1, 1]),
    ]
    source = model_of(nodes, {"x": (TensorProto.FLOAT, [1, 8, 6, 6])}, ["y"], {"kernel": kernel, "turned": turned})
    model, _, _ = built(source, Options(WeightForm.INT8), tmp_path)
    scales = [each for each in model.graph.initializer if each.name.endswith("/scale")]
    assert [list(each.dims) for each in scales] == [[16], [8]]
    assert np.allclose(array_of(scales[0]), np.abs(kernel).max(axis=(1, 2, 3)) / 127)
    x = {"x": np.random.default_rng(2).standard_normal((1, 8, 6, 6)).astype(np.float32)}
    assert relative(run(source, x)[0], run(model, x)[0]) < 0.02


@pytest.mark.parametrize("form", [WeightForm.INT8, WeightForm.INT4])
@pytest.mark.parametrize("is_standard", [True, False])
def test_kernels_are_compressed_in_groups(form: WeightForm, is_standard: bool, tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).standard_normal((6, 64, 3, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["y"])]
    source = model_of(nodes, {"x": (TensorProto.FLOAT, [1, 64, 6, 2])}, ["y"], {"kernel": kernel}, opset=17)
    model, _, _ = built(source, Options(form, group=32), tmp_path, is_standard=is_standard)
    x = {"x": np.random.default_rng(2).standard_normal((1, 64, 6, 2)).astype(np.float32)}
    assert relative(run(source, x)[0], run(model, x)[0]) < (0.02 if form is WeightForm.INT8 else 0.3)


@pytest.mark.parametrize("form", [WeightForm.FP16, WeightForm.BF16])
def test_weights_of_16_bits_are_a_source(form: WeightForm, tmp_path: Path) -> None:
    half, _, _ = built(perceptron(), Options(form), tmp_path)
    model, _, result = built(half, Options(WeightForm.INT8), tmp_path)
    assert set(result.changes) == {"first", "second"}
    assert "Cast" not in ops_of(model)
    assert relative(run(half, X)[0], run(model, X)[0]) < 0.02


def test_weights_of_zeros_and_of_one_zero_channel_are_right(tmp_path: Path) -> None:
    first = matrix(64, 64)
    first[:, 3] = 0
    source = perceptron(first=first, second=np.zeros((64, 32), np.float32))
    for name in ("int8", "int4 in groups", "palette", "dynamic"):
        model, _, _ = built(source, FORMS[name][0], tmp_path)
        assert not run(model, X)[0].any(), name


def test_what_is_not_compressed_has_a_reason(tmp_path: Path) -> None:
    nan = matrix(64, 64)
    nan[5, 5] = np.nan
    model, plan, _ = built(perceptron(first=nan), Options(WeightForm.INT8), tmp_path)
    assert [(each.name, each.reason) for each in plan.kept] == [("first", "it has NaN or infinities")]
    # What is quantized already is left alone.
    again, plan, _ = built(perceptron(), Options(WeightForm.INT8), tmp_path)
    again.graph.initializer.append(numpy_helper.from_array(matrix(64, 64), "third"))
    again.graph.node.append(helper.make_node("MatMul", ["x", "third"], ["z"]))
    again.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    model, plan, _ = built(again, Options(WeightForm.INT4), tmp_path)
    assert list(plan.layers) == ["third"]
    assert {each.reason for each in plan.kept} == {"it is quantized already (INT8)"}
    assert np.array_equal(run(model, X)[0], run(perceptron_int8(tmp_path), X)[0])


def perceptron_int8(folder: Path) -> ModelProto:
    return built(perceptron(), Options(WeightForm.INT8), folder)[0]


@pytest.mark.parametrize("name", ["int8", "int4 in groups", "dynamic"])
def test_old_models_list_their_weights_as_inputs(name: str, tmp_path: Path) -> None:
    source = perceptron(opset=9)
    source.ir_version = 3
    source.graph.input.extend(
        helper.make_tensor_value_info(each.name, each.data_type, list(each.dims)) for each in source.graph.initializer
    )
    model, plan, _ = built(source, FORMS[name][0], tmp_path)
    assert list(plan.layers) == ["first", "second"]
    assert [value.name for value in model.graph.input] == ["x"]
    onnx.checker.check_model(model)
    assert 0 < relative(run(source, X)[0], run(model, X)[0]) < 0.3


def test_weights_that_requests_may_replace_stay(tmp_path: Path) -> None:
    source = perceptron()
    source.graph.input.append(helper.make_tensor_value_info("first", TensorProto.FLOAT, [64, 64]))
    _, plan, _ = built(source, Options(WeightForm.INT8), tmp_path)
    assert [(each.name, each.reason[:28]) for each in plan.kept] == [("first", "it is the default of an inpu")]


def test_weights_in_branches_are_told(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64])],
            [weight],
        )
        for name in ("then", "else")
    }
    inputs = {"x": (TensorProto.FLOAT, ["n", 64]), "is": (TensorProto.BOOL, [])}
    source = model_of([helper.make_node("If", ["is"], ["y"], **branches)], inputs, ["y"], {})
    with pytest.raises(UnsupportedError, match="its weights are in branches or loops, where they are not compressed"):
        built(source, Options(WeightForm.INT8), tmp_path)


def test_a_model_without_weights_has_nothing_to_compress(tmp_path: Path) -> None:
    source = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (TensorProto.FLOAT, ["n"])}, ["y"], {})
    with pytest.raises(UnsupportedError, match="nothing to compress in the model: it has no weights of 1,024"):
        built(source, Options(WeightForm.INT8), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bits": 9}, "9 bits"),
        ({"weights": WeightForm.INT4, "group": 48}, "groups of 48"),
        ({"per": Per.TENSOR, "group": 32}, "--per tensor"),
        ({"sparsity": 1.5}, "a sparsity of 1.5"),
        ({"sparsity": 0.5, "n_m": (2, 4)}, "not by both"),
        ({"n_m": (4, 2)}, "the pattern 4:2"),
        ({"weights": WeightForm.SPARSE}, "need a share of zeros"),
        ({"weights": WeightForm.INT4, "activations": Activations.INT8}, "--weights int8"),
        ({"activations": Activations.INT8, "is_symmetric": False}, "--asymmetric"),
    ],
)
def test_options_that_do_not_fit_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Options(**{"weights": WeightForm.INT8, **wrong})
