"""What answers may differ by where a rounding becomes a level, or all that there is; and by no more."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from support.lowered import BOOL, FLOAT, model_of
from triune.graph.verify import OnnxModel, OutputVerdict, Verdict, samples_of, verify
from triune.graph.verify.noise import with_noise

ROUNDING = np.float32(1 + 2**-22)


def quantized(*, is_direct: bool = False) -> ModelProto:
    """Two products with QuantizeLinear between them, whose arguments are on ties; or what is quantized as it comes."""
    rng = np.random.default_rng(0)
    first = [] if is_direct else [helper.make_node("MatMul", ["x", "v"], ["a"])]
    nodes = [
        *first,
        helper.make_node("QuantizeLinear", ["x" if is_direct else "a", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    constants = {
        "v": rng.integers(-3, 4, (8, 8)).astype(np.float32),
        "w": rng.standard_normal((8, 8)).astype(np.float32),
        "scale": np.float32(2.0),
        "zero": np.int8(3),
    }
    return model_of(nodes, [("x", FLOAT, [4, 8])], [("y", FLOAT, [4, 8])], **constants)


def changed(model: ModelProto, name: str, array: Any) -> ModelProto:
    other = ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(array, numpy_helper.to_array(tensor).dtype), name))
    return other


def judged(model: ModelProto, other: ModelProto, factor: Any = 1.0, tolerance: float = 1e-4) -> OutputVerdict:
    source, result = OnnxModel(model, tolerance), OnnxModel(other)

    def run(arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        return result.run({name: (array * factor).astype(array.dtype) for name, array in arrays.items()})

    (verdict,) = verify(samples_of(model, {}, {}, is_half=False), source.run, run, source, tolerance)
    return verdict


def test_a_rounding_that_becomes_a_level_is_no_fault() -> None:
    found = judged(quantized(), quantized(), ROUNDING)
    assert found.verdict is Verdict.RIGHT
    assert found.error > 1e-3 * found.largest
    # What is quantized comes to its step without a rounding: there is one right level.
    assert judged(quantized(is_direct=True), quantized(is_direct=True), ROUNDING).verdict is Verdict.WRONG


@pytest.mark.parametrize("tolerance", [1e-4, 0.05])
@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("scale", 2.5),
        ("zero", 120),
        ("v", numpy_helper.to_array(quantized().graph.initializer[0])[:, ::-1]),
        ("w", numpy_helper.to_array(quantized().graph.initializer[1])[::-1]),
    ],
)
def test_another_scale_zero_point_or_channel_is_wrong(name: str, array: Any, tolerance: float) -> None:
    assert judged(quantized(), changed(quantized(), name, array), tolerance=tolerance).verdict is Verdict.WRONG


@pytest.mark.parametrize("op_type", ["Elu", "Selu", "Celu", "Gelu", "Mish", "Softplus"])
def test_what_cancels_near_zero_has_the_error_of_one_rounding(op_type: str) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node(op_type, ["a"], ["y"])]
    w = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    model = model_of(nodes, [("x", FLOAT, [2, 8])], [("y", FLOAT, [2, 8])], w=w)
    source = OnnxModel(model)
    tiny = {"x": np.full((2, 8), 1e-6, np.float32)}
    allowed = source.uncertainty(tiny)["y"].largest
    assert 6e-8 < allowed < 1e-6
    assert judged(model, model, np.float32(1.01)).verdict is Verdict.WRONG


def test_errors_are_put_into_branches_too() -> None:
    branch = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("DynamicQuantizeLinear", ["a"], ["q", "s", "z"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["b"]),
        ],
        "then",
        [],
        [helper.make_tensor_value_info("b", FLOAT, [2, 2])],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["c"])], "else", [], [helper.make_tensor_value_info("c", FLOAT, [2, 2])]
    )
    model = model_of(
        [helper.make_node("If", ["is"], ["y"], then_branch=branch, else_branch=other)],
        [("is", BOOL, []), ("x", FLOAT, [2, 2])],
        [("y", FLOAT, [2, 2])],
        w=np.random.default_rng(0).standard_normal((2, 2)).astype(np.float32),
    )
    source = OnnxModel(model, 0.05)
    x = np.random.default_rng(1).standard_normal((2, 2)).astype(np.float32)
    assert source.uncertainty({"is": np.array(True), "x": x})["y"].largest > 0
    assert source.uncertainty({"is": np.array(False), "x": x})["y"].largest == 0


def test_models_without_steps_are_left_alone() -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, [2])], [("y", FLOAT, [2])])
    assert with_noise(model, 1e-5, is_exact=True) is None


@pytest.mark.parametrize("opset", [17, 23])
def test_scores_of_a_softmax_that_are_nearly_equal_are_uncertain(opset: int) -> None:
    """Of scores of some thousands fp32 rounds the last digits, and Softmax multiplies these errors by the scores."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["scores"]),
        helper.make_node("Add", ["scores", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["y"]),
    ]
    mask = np.zeros((4, 8), np.float32)
    mask[:, 6:] = -3.4e38
    same = 300 + np.abs(rng.standard_normal((16, 1))) + rng.standard_normal((16, 8)) * 0.01
    model = model_of(nodes, [("x", FLOAT, [4, 16])], [("y", FLOAT, [4, 8])], w=same.astype(np.float32), mask=mask)
    model.opset_import[0].version = opset
    assert judged(model, model, ROUNDING).verdict is Verdict.RIGHT
    # An error that rounding does not explain stays one.
    other = same + 0.01 * rng.standard_normal(same.shape)
    assert judged(model, changed(model, "w", other)).verdict is Verdict.WRONG


@pytest.mark.parametrize("opset", [17, 21, 22, 24])
def test_noise_is_made_in_every_operator_set(opset: int) -> None:
    """ONNX Runtime lacks the random operators of new ones."""
    model = quantized()
    model.opset_import[0].version = opset
    uncertain = OnnxModel(model).uncertainty({"x": np.ones((4, 8), np.float32)})
    assert uncertain["y"].largest > 0
