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
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=1)
