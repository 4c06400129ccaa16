"""Quantized weights in ONNX: what ONNX Runtime makes of them by its default optimizations."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from support.lowered import FLOAT
from triune.graph.raising.quantized_weights import quantized_weights
from triune.graph.raising.types import DType


@pytest.mark.parametrize("zero", [None, 0, 120, "columns"])
def test_products_of_whole_numbers_are_exact(zero: Any) -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (64, 32)).astype(np.uint8)
    points = np.arange(100, 132).reshape(1, 32) if zero == "columns" else np.full((1, 1), zero or 0)
    given = None if zero is None else points.astype(np.uint8)
    weights = quantized_weights(data, DType.UINT8, np.ones((1, 1), np.float32), DType.FP32, given)
    assert weights is not None
    nodes, constants = weights.protos("w")
    values = [helper.make_tensor_value_info(name, FLOAT, [4, size]) for name, size in (("x", 64), ("y", 32))]
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = rng.integers(0, 256, (4, 64)).astype(np.float32)
    session: Any = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x @ (data - points.astype(np.float32)))
