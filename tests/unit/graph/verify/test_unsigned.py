"""Weights that ONNX Runtime multiplies wrongly on some CPUs."""

import numpy as np
from onnx import ModelProto, numpy_helper

from support.contrib.case import floats, microsoft
from triune.graph.verify.onnx_model import OnnxModel
from triune.graph.verify.unsigned import use_unsigned_weights


def saturating() -> tuple[ModelProto, np.ndarray, np.ndarray]:
    """A product of large numbers, its input, and what it is."""
    a = np.abs(floats(3, 8)) + 5
    b = np.random.default_rng(0).integers(100, 128, (8, 5)).astype(np.int8)
    inputs = {"a": a, "b": b, "bs": np.array(0.01, np.float32), "bz": np.array(3, np.int8)}
    model = microsoft("DynamicQuantizeMatMul", inputs, weights=["b", "bs", "bz"]).model({"y": (3, 5)})
    scale = a.max() / np.float32(255)
    return model, a, np.rint(a / scale) @ (b.astype(np.float32) - 3) * scale * 0.01


def test_products_of_large_levels_do_not_saturate() -> None:
    model, a, expected = saturating()
    np.testing.assert_allclose(OnnxModel(model).run({"a": a})["y"], expected, rtol=1e-4)


def test_weights_and_zero_points_move_together() -> None:
    model, _, _ = saturating()
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    use_unsigned_weights(model)
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert [after[name].dtype for name in ("b", "bz")] == [np.uint8, np.uint8]
    np.testing.assert_array_equal(after["b"].astype(int) - after["bz"], before["b"].astype(int) - before["bz"])
