"""MeanVarianceNormalization of what is all one value is 0, as ONNX defines it, and not zero by zero."""

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
