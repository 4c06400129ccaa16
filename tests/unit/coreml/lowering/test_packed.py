"""Packed weights in Core ML's forms of them: as small, and the same answers."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.lowered import FLOAT, check, model_of
from support.packed_models import FORMS, packed_model, x_of
from triune.coreml.lowering import LowerOptions, Target, lower
from triune.coreml.package import read_package
from triune.graph.conversion.options import Layout, Precision
from triune.graph.packed import small_tensor

WHOLE = {"n bits 4 with float zeros"}
FOUR_BITS_OR_BLOCKS = {form for form in FORMS if "4" in form or "blocks" in form or "n bits" in form} | {
    "transposed",
    "gemm",
}


def ops_of(path: Path) -> Counter[str]:
    return Counter(operation.op for operation in read_package(path).function().block.operations)


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("weight.bin"))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_one_operation(form: str, tmp_path: Path) -> None:
    check(packed_model(form), {"x": x_of(form)}, tmp_path)
    ops = ops_of(tmp_path / "m.mlpackage")
    assert ops["linear"] + ops["matmul"] == 1
    assert ops["constexpr_blockwise_shift_scale"] == (0 if form in WHOLE else 1)
    assert ops["mul"] == ops["cast"] == ops["transpose"] == 0


@pytest.mark.parametrize("form", [form for form in FORMS if form != "gemm"])
def test_each_form_is_the_weight_of_a_convolution(form: str, tmp_path: Path) -> None:
    check(packed_model(form), {"x": x_of(form)}, tmp_path, LowerOptions(layout=Layout.ANE))
    ops = ops_of(tmp_path / "m.mlpackage")
    assert ops["conv"] == 1
    assert ops["constexpr_blockwise_shift_scale"] == (0 if form in WHOLE else 1)


@pytest.mark.parametrize("form", FORMS)
def test_what_the_target_lacks_is_made_whole_and_said(form: str, tmp_path: Path) -> None:
    for target in (Target.IOS15, Target.IOS16):
        options = LowerOptions(target=target)
        check(packed_model(form), {"x": x_of(form)}, tmp_path, options)
        lowered = lower(packed_model(form), tmp_path / "n.mlpackage", options)
        is_packed = target is Target.IOS16 and form not in FOUR_BITS_OR_BLOCKS
        assert ops_of(tmp_path / "n.mlpackage")["constexpr_affine_dequantize"] == is_packed
        assert bool(lowered.notes) == (not is_packed and form not in WHOLE)
        assert all("give --target iOS1" in note for note in lowered.notes)


@pytest.mark.parametrize(("kind", "ratio"), [("int8", 4), ("int4", 8)])
def test_the_package_is_as_small_as_the_weights(kind: str, ratio: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    limits = {"int8": (-128, 128), "int4": (-8, 8)}[kind]
    data = small_tensor("q", getattr(TensorProto, kind.upper()), rng.integers(*limits, (512, 512)))
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    model = model_of(nodes, [("x", FLOAT, [2, 512])], [("y", FLOAT, [2, 512])])
    model.graph.initializer.extend([data, numpy_helper.from_array(rng.random(512, np.float32) + 1, "s")])
    for options in (LowerOptions(), LowerOptions(precision=Precision.FP16)):
        lower(model, tmp_path / "m.mlpackage", options)
        assert size_of(tmp_path / "m.mlpackage") < 512 * 512 * 4 / ratio + 8192


def test_scales_that_fp16_does_not_hold_keep_the_weights_whole(tmp_path: Path) -> None:
    model = packed_model("int8 tensor")
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == "s")
    scale.CopyFrom(onnx.numpy_helper.from_array(np.array(1e-6, np.float32), "s"))
    lowered = lower(model, tmp_path / "m.mlpackage", LowerOptions(precision=Precision.FP16))
    assert any("fp16 cannot represent their scales" in note for note in lowered.notes)
    assert lower(model, tmp_path / "m.mlpackage").notes == []


@pytest.mark.parametrize("target", [Target.IOS16, Target.IOS18])
@pytest.mark.parametrize("is_one_initializer", [True, False])
@pytest.mark.parametrize("size", [8, 64])
def test_two_layers_that_share_a_packed_weight_share_it_in_the_program(
    target: Target, is_one_initializer: bool, size: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    weight, names = rng.integers(-128, 128, (size, size)).astype(np.int8), ("q", "q" if is_one_initializer else "r")
    nodes = [
        helper.make_node("DequantizeLinear", [names[0], "s"], ["w"], axis=0),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["g"]),
        helper.make_node("DequantizeLinear", [names[1], "s"], ["v"], axis=0),
        helper.make_node("MatMul", ["g", "v"], ["y"]),
    ]
    constants = dict.fromkeys(names, weight) | {"s": (rng.random(size, np.float32) + 0.5) / 1000}
    model = model_of(nodes, [("x", FLOAT, [3, size])], [("y", FLOAT, [3, size])], **constants)
    for precision in (Precision.FP32, Precision.FP16):
        options = LowerOptions(precision=precision, target=target)
        check(model, {"x": rng.standard_normal((3, size), np.float32)}, tmp_path, options, atol=2e-2)
        ops = ops_of(tmp_path / "m.mlpackage")
        # Large ones stay two operations, over one piece of the weights' file.
        assert ops["constexpr_blockwise_shift_scale"] + ops["constexpr_affine_dequantize"] == (1 if size == 8 else 2)
        assert size_of(tmp_path / "m.mlpackage") < 2 * weight.nbytes or size == 8


def test_embeddings_and_integer_products_stay_packed(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["table"], axis=0),
        helper.make_node("Gather", ["table", "x"], ["z"]),
        helper.make_node("DynamicQuantizeLinear", ["z"], ["zq", "zs", "zz"]),
        helper.make_node("MatMulInteger", ["zq", "w", "zz", "wz"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=FLOAT),
        helper.make_node("Mul", ["zs", "ws"], ["r"]),
        helper.make_node("Mul", ["f", "r"], ["y"]),
    ]
    model = model_of(
        nodes,
        [("x", TensorProto.INT64, [5])],
        [("y", FLOAT, [5, 48])],
        q=rng.integers(-128, 128, (100, 64)).astype(np.int8),
        s=rng.random(100, np.float32),
        w=rng.integers(0, 256, (64, 48)).astype(np.uint8),
        wz=rng.integers(0, 256, 48).astype(np.uint8),
        ws=rng.random(48, np.float32),
    )
    check(model, {"x": np.array([0, 99, 3, 4, 5])}, tmp_path, atol=1e-2)
    assert ops_of(tmp_path / "m.mlpackage")["constexpr_blockwise_shift_scale"] == 2
