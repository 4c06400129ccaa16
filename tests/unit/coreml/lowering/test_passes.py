"""Passes over programs: what they fuse, what they leave, and that outputs keep their names and answers."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, shape_inference

from support import lowered
from support.lowered import FLOAT, check
from triune.coreml.lowering import LowerOptions
from triune.coreml.package import read_package
from triune.graph.conversion.options import Precision

N = helper.make_node
INT32 = TensorProto.INT32
RNG = np.random.default_rng(5)


def _noise(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def model_of(nodes: Any, inputs: Any, outputs: Any, **constants: Any) -> ModelProto:
    """A model whose outputs have the shapes that follow."""
    return shape_inference.infer_shapes(lowered.model_of(nodes, inputs, outputs, **constants))


def _ops(folder: Path) -> Counter[str]:
    return Counter(op.op for op in read_package(folder / "m.mlpackage").function().block.operations if op.op != "const")


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_scale_of_each_channel_after_a_grouped_transposed_convolution(tmp_path, groups, dims):
    weight = _noise(4, 6 // groups, *([2] * dims))
    nodes = [
        N("ConvTranspose", ["x", "w"], ["c"], group=groups),
        N("Mul", ["c", "k"], ["m"]),
        N("BatchNormalization", ["m", "s", "b", "mean", "v"], ["y"]),
    ]
    shape = [1, 4, *([3] * dims)]
    constants = {
        "k": _noise(6, *([1] * dims)),
        "s": _noise(6),
        "b": _noise(6),
        "mean": _noise(6),
        "v": np.abs(_noise(6)),
    }
    model = model_of(nodes, [("x", FLOAT, shape)], [("y", FLOAT, None)], w=weight, **constants)

    check(model, {"x": _noise(*shape)}, tmp_path)

    assert _ops(tmp_path) == {"conv_transpose": 1}


def test_quotients_of_whole_numbers_stay_exact(tmp_path):
    nodes = [N("Div", ["x", "k"], ["d"]), N("Floor", ["d"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, [400])], [("y", FLOAT, [400])], k=np.float32(41))

    results = check(model, {"x": np.arange(400, dtype=np.float32) * 41}, tmp_path)

    np.testing.assert_array_equal(results["y"], np.arange(400))


def test_requantization_rounds_quotients_as_the_source_does(tmp_path):
    nodes = [
        N("QuantizeLinear", ["x", "s", "z"], ["a"]),
        N("DequantizeLinear", ["a", "s", "z"], ["b"]),
        N("QuantizeLinear", ["b", "t", "z"], ["c"]),
        N("DequantizeLinear", ["c", "t", "z"], ["y"]),
    ]
    constants = {"s": np.float32(0.05), "t": np.float32(0.11), "z": np.int8(3)}
    model = model_of(nodes, [("x", FLOAT, [512])], [("y", FLOAT, [512])], **constants)

    check(model, {"x": np.linspace(-8, 8, 512, dtype=np.float32)}, tmp_path, atol=1e-6)


@pytest.mark.parametrize(
    ("by", "plus"), [([3, 1, 1], [1, 1, 1, 1]), ([3, 1, 1], [3, 1, 1]), ([1, 3, 1, 1], [4]), ([1, 1, 1], [3, 1, 4])]
)
def test_products_and_sums_of_unequal_ranks(tmp_path, by, plus):
    nodes = [N("Mul", ["x", "k"], ["m"]), N("Add", ["m", "b"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, [2, 3, 5, 4])], [("y", FLOAT, None)], k=_noise(*by), b=_noise(*plus))

    check(model, {"x": _noise(2, 3, 5, 4)}, tmp_path)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize(
    ("nodes", "size"),
    [
        ([N("Relu", ["x"], ["y"]), N("Relu", ["y"], ["z"])], 4),
        ([N("Transpose", ["x"], ["y"], perm=[1, 0]), N("Transpose", ["y"], ["z"], perm=[1, 0])], 4),
        ([N("Neg", ["x"], ["y"]), N("Neg", ["x"], ["z"])], 4),
        ([N("Neg", ["x"], ["y"]), N("Identity", ["y"], ["z"])], 4),
        ([N("Identity", ["x"], ["y"]), N("Identity", ["x"], ["z"])], 4),
        ([N("Pad", ["x", "p"], ["y"]), N("Pad", ["y", "p"], ["z"])], 8),
    ],
)
def test_two_outputs_of_one_value_come_under_both_names(tmp_path, nodes, size, precision):
    constants = {"p": np.array([0, 1, 0, 1])} if size == 8 else {}
    model = model_of(nodes, [("x", FLOAT, [4, 4])], [("y", FLOAT, None), ("z", FLOAT, None)], **constants)

    check(model, {"x": _noise(4, 4)}, tmp_path, LowerOptions(precision=precision), atol=2e-3)


def test_whole_numbers_beyond_what_floats_hold_are_rounded_by_a_cast_there_and_back(tmp_path):
    nodes = [N("Cast", ["x"], ["f"], to=FLOAT), N("Cast", ["f"], ["y"], to=INT32)]
    model = model_of(nodes, [("x", INT32, [3])], [("y", INT32, [3])])

    results = check(model, {"x": np.array([16_777_217, -16_777_219, 5], np.int32)}, tmp_path)

    assert list(results["y"]) == [16_777_216, -16_777_220, 5]


@pytest.mark.parametrize("rank", [2, 3])
def test_a_product_and_its_bias_are_linear(tmp_path, rank):
    shape = [2, 3, 4][-rank:]
    nodes = [N("MatMul", ["x", "w"], ["m"]), N("Add", ["b", "m"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, shape)], [("y", FLOAT, None)], w=_noise(4, 5), b=_noise(5))

    check(model, {"x": _noise(*shape)}, tmp_path)

    assert _ops(tmp_path) == {"linear": 1}


@pytest.mark.parametrize("bias", [[1, 1, 1, 5], [2, 1, 5], [1], [3, 1]])
def test_a_sum_that_is_no_bias_stays(tmp_path, bias):
    nodes = [N("MatMul", ["x", "w"], ["m"]), N("Add", ["m", "b"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, [3, 4])], [("y", FLOAT, None)], w=_noise(4, 5), b=_noise(*bias))

    check(model, {"x": _noise(3, 4)}, tmp_path)

    assert _ops(tmp_path)["add"] == 1


def _layer_norm(square_axis: int = -1, gamma: Any = None) -> Any:
    nodes = [
        N("ReduceMean", ["x", "axis"], ["m"]),
        N("Sub", ["x", "m"], ["z"]),
        N("Pow", ["z", "two"], ["p"]),
        N("ReduceMean", ["p", "other"], ["v"]),
        N("Add", ["v", "e"], ["a"]),
        N("Sqrt", ["a"], ["s"]),
        N("Div", ["z", "s"], ["n"]),
        N("Mul", ["n", "g"], ["k"]),
        N("Add", ["k", "b"], ["y"]),
    ]
    constants = {"axis": np.array([-1]), "other": np.array([square_axis]), "two": np.float32(2), "e": np.float32(1e-5)}
    gamma = _noise(6) if gamma is None else gamma
    return model_of(nodes, [("x", FLOAT, [2, 4, 6])], [("y", FLOAT, None)], g=gamma, b=_noise(6), **constants)


def test_a_layer_normalization_that_is_written_out_is_one_operation(tmp_path):
    check(_layer_norm(), {"x": _noise(2, 4, 6)}, tmp_path)

    assert _ops(tmp_path) == {"layer_norm": 1}


def test_a_shift_before_a_scale_is_the_normalizations_without_one(tmp_path):
    model = _layer_norm()
    scale, shift = model.graph.node[-2:]
    scale.op_type, shift.op_type = shift.op_type, scale.op_type

    check(model, {"x": _noise(2, 4, 6)}, tmp_path)

    assert _ops(tmp_path) == {"layer_norm": 1, "mul": 1}


def test_a_scale_of_another_form_stays_outside_of_the_normalization(tmp_path):
    check(_layer_norm(gamma=_noise(4, 1)), {"x": _noise(2, 4, 6)}, tmp_path)

    assert _ops(tmp_path) == {"layer_norm": 1, "mul": 1, "add": 1}


def test_means_over_different_axes_are_no_layer_normalization(tmp_path):
    check(_layer_norm(square_axis=-2), {"x": _noise(2, 4, 6)}, tmp_path)

    assert _ops(tmp_path)["layer_norm"] == 0


def test_weights_that_are_nearly_equal_are_two(tmp_path):
    tiny = np.full((64, 64), 1e-13, np.float32)
    other = tiny.copy()
    other[60:] = 2e-13
    nodes = [N("Mul", ["x", "k"], ["y"]), N("Mul", ["x", "l"], ["z"])]
    model = model_of(nodes, [("x", FLOAT, [64, 64])], [("y", FLOAT, None), ("z", FLOAT, None)], k=tiny, l=other)

    results = check(model, {"x": np.ones((64, 64), np.float32)}, tmp_path)

    assert results["z"][63, 0] == np.float32(2e-13)


def _gelu(order: int, half: float = 0.5, *, is_tanh: bool = False) -> ModelProto:
    inside = [N("Div", ["x", "root"], ["i"]), N("Erf", ["i"], ["e"])]
    if is_tanh:
        inside = [
            *(N("Mul", ["x", "x"], ["xx"]), N("Mul", ["xx", "x"], ["xxx"]), N("Mul", ["xxx", "c"], ["cx"])),
            *(N("Add", ["x", "cx"], ["sum"]), N("Mul", ["k", "sum"], ["i"]), N("Tanh", ["i"], ["e"])),
        ]
    products = (
        [N("Mul", ["x", "o"], ["p"]), N("Mul", ["p", "half"], ["y"])],
        [N("Mul", ["o", "half"], ["p"]), N("Mul", ["x", "p"], ["y"])],
        [N("Mul", ["half", "x"], ["p"]), N("Mul", ["p", "o"], ["y"])],
    )
    nodes = [*inside, N("Add", ["one", "e"], ["o"]), *products[order]]
    numbers = {"root": 2**0.5, "one": 1, "half": half, "c": 0.044715, "k": (2 / np.pi) ** 0.5}
    constants = {name: np.float32(number) for name, number in numbers.items()}
    return model_of(nodes, [("x", FLOAT, [64])], [("y", FLOAT, None)], **constants)


@pytest.mark.parametrize(("order", "is_tanh"), [(0, False), (1, False), (2, False), (0, True), (2, True)])
def test_gelu_that_is_written_out_is_one_operation(tmp_path, order, is_tanh):
    check(_gelu(order, is_tanh=is_tanh), {"x": 4 * _noise(64)}, tmp_path)

    assert _ops(tmp_path) == {"gelu": 1}


def test_what_is_nearly_gelu_is_not(tmp_path):
    check(_gelu(0, 0.4998), {"x": 4 * _noise(64)}, tmp_path)

    assert _ops(tmp_path)["gelu"] == 0


def test_quotients_by_zeros_of_both_signs_are_two(tmp_path):
    nodes = [N("Div", ["x", "p"], ["a"]), N("Div", ["x", "m"], ["b"]), N("Concat", ["a", "b"], ["y"], axis=0)]
    model = model_of(nodes, [("x", FLOAT, [2])], [("y", FLOAT, None)], p=np.float32(0.0), m=np.float32(-0.0))

    results = check(model, {"x": np.float32([1, -1])}, tmp_path)

    assert list(results["y"]) == [np.inf, -np.inf, -np.inf, np.inf]


def test_equal_operations_are_one(tmp_path):
    nodes = [N("Exp", ["x"], ["a"]), N("Exp", ["x"], ["b"]), N("Add", ["a", "b"], ["y"])]

    check(model_of(nodes, [("x", FLOAT, [4])], [("y", FLOAT, None)]), {"x": _noise(4)}, tmp_path)

    assert _ops(tmp_path)["exp"] == 1
