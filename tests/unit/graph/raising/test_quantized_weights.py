"""Quantized weights in ONNX: what ONNX Runtime makes of them by its default optimizations."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from support.lowered import FLOAT
from triune.graph.raising.graph import KeptWeights, Root
from triune.graph.raising.palettes import palette
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
    nodes, constants = weights.protos("w", Root([]).fresh)
    values = [helper.make_tensor_value_info(name, FLOAT, [4, size]) for name, size in (("x", 64), ("y", 32))]
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = rng.integers(0, 256, (4, 64)).astype(np.float32)
    session: Any = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x @ (data - points.astype(np.float32)))


def test_parts_of_weights_take_no_name_that_the_model_has() -> None:
    data = np.arange(4096).reshape(64, 64) % 16
    ones = np.ones((1, 1), np.float32)
    whole = quantized_weights(data.astype(np.uint8), DType.UINT8, ones, DType.FP32, None)
    table = palette(data, np.arange(32, dtype=np.float32).reshape(2, 1, 16, 1), DType.FP32)
    names = {f"w/{part}" for part in ("quantized", "scale", "indices", "table", "place", "starts", "place/all")}
    kept: list[KeptWeights | None] = [whole, table]
    for weights in kept:
        assert weights is not None
        nodes, constants = weights.protos("w", Root(["w", *names]).fresh)
        made = {tensor.name for tensor in constants} | {name for node in nodes for name in node.output}
        assert made & {"w", *names} == {"w"}
        assert {name for node in nodes for name in node.input} <= made
