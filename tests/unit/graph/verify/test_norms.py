"""Norms that ONNX Runtime computes wrongly: of what is all one value, and of what is far from 0."""

import numpy as np
import pytest
from onnx import helper

from support.lowered import FLOAT, model_of
from triune.graph.verify import OnnxModel


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_the_norm_of_one_value_is_zero(opset: int) -> None:
    nodes = [helper.make_node("MeanVarianceNormalization", ["x"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, [1, 3, 4, 5])], [("y", FLOAT, [1, 3, 4, 5])])
    model.opset_import[0].version = opset
    source = OnnxModel(model)
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 5), np.float32) + 100
    expected = (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(source.run({"x": x})["y"], expected, atol=1e-3)
    if opset >= 15:
        assert (source.run({"x": np.zeros_like(x)})["y"] == 0).all()


@pytest.mark.parametrize("opset", [18, 21])
def test_the_norm_of_groups_is_one_far_from_zero(opset: int) -> None:
    """ONNX Runtime's own answer is NaN: it takes the root of mean(x^2) - mean^2."""
    num_scales = 2 if opset < 21 else 6
    nodes = [helper.make_node("GroupNormalization", ["x", "scale", "bias"], ["y"], num_groups=2, epsilon=1e-6)]
    weights = {"scale": np.arange(1, 1 + num_scales, dtype=np.float32), "bias": np.ones(num_scales, np.float32)}
    model = model_of(nodes, [("x", FLOAT, [2, 6, 5, 7])], [("y", FLOAT, [2, 6, 5, 7])], **weights)
    model.opset_import[0].version = opset
    x = (100 + 0.02 * np.random.default_rng(0).standard_normal((2, 6, 5, 7))).astype(np.float32)
    groups = x.astype(np.float64).reshape(2, 2, -1)
    normal = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-6)
    columns = normal.reshape(2, num_scales, -1) * weights["scale"][:, None] + weights["bias"][:, None]
    np.testing.assert_allclose(OnnxModel(model).run({"x": x})["y"], columns.reshape(x.shape), atol=0.02)
