"""Products of quantized tensors are rounded once, as ONNX Runtime does: sums may be in the middle of two levels."""

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from support.graphs import model_of
from support.lowered import plain_answers
from triune.core.datatypes import Array
from triune.graph.check import evaluate
from triune.graph.normalize import normalize

RNG = np.random.default_rng(5)
# Half of the sums are in the middle of two levels.
SCALES = "float xs = {0.1}, float ys = {0.04}, uint8 xz = {128}, uint8 yz = {120}"


def with_weights(text: str, **weights: Array) -> ModelProto:
    model = model_of(text, opset=13)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def compare(model: ModelProto, x: Array) -> None:
    (expected,) = plain_answers(model, {"x": x})
    np.testing.assert_array_equal(evaluate(normalize(model), {"x": x})[0], expected)


def test_a_matrix_product() -> None:
    model = with_weights(
        f"""g (uint8[4,6] x) => (uint8[4,5] y) <{SCALES}, float ws = {{0.2}}, int8 wz = {{0}}> {{
        y = QLinearMatMul (x, xs, xz, w, ws, wz, ys, yz) }}""",
        w=RNG.integers(-20, 20, (6, 5)).astype(np.int8),
    )
    compare(model, RNG.integers(118, 138, (4, 6)).astype(np.uint8))


@pytest.mark.parametrize("scale", [np.float32(0.2), np.array([0.2, 0.6, 0.02], np.float32)])
@pytest.mark.parametrize("bias", ["", ", b"])
def test_a_convolution(scale: Array, bias: str) -> None:
    model = with_weights(
        f"""g (uint8[1,2,5,5] x) => (uint8[1,3,3,3] y) <{SCALES}> {{
        y = QLinearConv (x, xs, xz, w, ws, wz, ys, yz{bias}) }}""",
        w=RNG.integers(-9, 9, (3, 2, 3, 3)).astype(np.int8),
        ws=np.asarray(scale),
        wz=np.zeros(np.shape(scale), np.int8),
        b=np.array([3, -8, 5], np.int32),
    )
    compare(model, RNG.integers(120, 138, (1, 2, 5, 5)).astype(np.uint8))


def test_scales_that_are_inputs() -> None:
    model = with_weights(
        """g (uint8[4,6] x, float s) => (uint8[4,5] y) <uint8 z = {128}, float ws = {0.2}, int8 wz = {0}> {
        y = QLinearMatMul (x, s, z, w, ws, wz, s, z) }""",
        w=RNG.integers(-20, 20, (6, 5)).astype(np.int8),
    )
    feeds = {"x": RNG.integers(118, 138, (4, 6)).astype(np.uint8), "s": np.array(0.13, np.float32)}
    (expected,), (found,) = plain_answers(model, feeds), evaluate(normalize(model), feeds)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("scale", "zero", "shape"),
    [
        (np.array([0.1, 0.2, 0.3], np.float32), np.int8(0), (6, 3)),
        (np.float32(0.1), np.array([7, 7, 7], np.int8), (6, 3)),
        (np.array([[[0.1, 0.2, 0.3]], [[0.4, 0.5, 0.6]]], np.float32), np.zeros((2, 1, 3), np.int8), (2, 6, 3)),
    ],
)
def test_a_product_with_a_scale_or_a_zero_point_for_each_column(
    scale: Array, zero: Array, shape: tuple[int, ...]
) -> None:
    """As ONNX Runtime's optimizer writes them."""
    model = with_weights(
        f"""g (uint8[2,4,6] x) => (uint8[2,4,3] y) <{SCALES}> {{
        y = QLinearMatMul (x, xs, xz, w, ws, wz, ys, yz) }}""",
        w=RNG.integers(-20, 20, shape).astype(np.int8),
        ws=np.asarray(scale),
        wz=np.asarray(zero),
    )
    compare(model, RNG.integers(118, 138, (2, 4, 6)).astype(np.uint8))


def test_a_product_with_a_scale_for_each_row() -> None:
    model = with_weights(
        f"""g (uint8[3,4] x) => (uint8[3,2] y) <{SCALES}, float ws = {{0.01}}, int8 wz = {{3}},
        float[3,1] as = {{0.01, 0.02, 0.03}}, uint8[3,1] az = {{10, 20, 120}}> {{
        y = QLinearMatMul (x, as, az, w, ws, wz, ys, yz) }}""",
        w=RNG.integers(-127, 128, (4, 2)).astype(np.int8),
    )
    x = RNG.integers(0, 256, (3, 4)).astype(np.uint8)
    # ONNX Runtime takes one scale for the first operand.
    sums = (x - np.array([[10], [20], [120]])) @ (numpy_helper.to_array(model.graph.initializer[-1]).astype(int) - 3)
    steps = sums.astype(np.float32) * (np.array([[0.01], [0.02], [0.03]], np.float32) * np.float32(0.01))
    expected = np.clip(np.rint(steps / np.float32(0.04)) + 120, 0, 255)
    assert np.abs(evaluate(normalize(model), {"x": x})[0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("scale", "zero"),
    [(np.array([0.2, 0.6, 0.02], np.float32), np.int8(0)), (np.float32(0.2), np.array([7, 7, 7], np.int8))],
)
def test_a_convolution_with_a_scale_or_a_zero_point_for_each_channel(scale: Array, zero: Array) -> None:
    model = with_weights(
        f"""g (uint8[1,2,5,5] x) => (uint8[1,3,3,3] y) <{SCALES}> {{
        y = QLinearConv (x, xs, xz, w, ws, wz, ys, yz) }}""",
        w=RNG.integers(-9, 9, (3, 2, 3, 3)).astype(np.int8),
        ws=np.asarray(scale),
        wz=np.asarray(zero),
    )
    compare(model, RNG.integers(120, 138, (1, 2, 5, 5)).astype(np.uint8))


@pytest.mark.parametrize("op", ["QLinearMatMul", "QLinearConv"])
def test_sums_beyond_what_fp32_holds_are_rounded_once(op: str) -> None:
    num = 1500
    x, w = RNG.integers(200, 256, (64, num)).astype(np.uint8), np.full((num, 1), 127, np.int8)
    w[:, 0] -= RNG.integers(0, 30, num).astype(np.int8)
    # The sum of the first row is in the middle of two levels.
    middle = np.float32(100.5 / (x[:1].astype(np.int64) @ w).item())
    form = f"[64,{num}]" if op == "QLinearMatMul" else f"[64,{num},1]"
    model = with_weights(
        f"""g (uint8{form} x) => (uint8{"[64,1]" if op == "QLinearMatMul" else "[64,1,1]"} y)
        <float one = {{1}}, uint8 z = {{0}}, int8 wz = {{0}}, uint8 three = {{3}}> {{
        y = {op} (x, one, z, w, ws, wz, one, three) }}""",
        w=w if op == "QLinearMatMul" else w.T.reshape(1, num, 1).copy(),
        ws=np.asarray(middle),
    )
    compare(model, x if op == "QLinearMatMul" else x[..., None])
