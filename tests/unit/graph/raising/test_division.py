"""Divisions of whole numbers at the ends of int32, as Python computes them."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from triune.graph.raising import division
from triune.graph.raising.graph import Graph, Root, Tensor
from triune.graph.raising.types import DType

LOWEST, HIGHEST = -(2**31), 2**31 - 1
NUMBERS = [LOWEST, LOWEST + 1, -16777219, -7, -1, 0, 1, 7, 16777219, 100000001, HIGHEST - 1, HIGHEST]
DIVISORS = [LOWEST, -16777217, -3, -2, 1, 2, 3, 256, 16777217, HIGHEST]
PAIRS = np.array([(x, y) for x in NUMBERS for y in DIVISORS], np.int32)


def truncated(x: int, y: int) -> int:
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


RULES: dict[str, Any] = {
    "floor_quotient": lambda x, y: x // y,
    "floor_remainder": lambda x, y: x % y,
    "truncated_quotient": truncated,
    "truncated_remainder": lambda x, y: x - truncated(x, y) * y,
}


def computed(rule: str, x: Any, y: Any) -> Any:
    graph = Graph(Root(["x", "y", "z"]))
    shape = x.shape
    result = getattr(division, rule)(graph, Tensor("x", DType.INT32, shape), Tensor("y", DType.INT32, shape))
    values = [helper.make_tensor_value_info(name, TensorProto.INT32, shape) for name in ("x", "y", result.name)]
    proto = graph.proto("g", values[:2], values[2:])
    proto.initializer.extend(graph.root.initializers)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session: Any = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "y": y})[0]


@pytest.mark.parametrize("rule", RULES)
def test_no_quotient_or_remainder_overflows(rule: str) -> None:
    found = computed(rule, PAIRS[:, 0].copy(), PAIRS[:, 1].copy())
    assert found.tolist() == [RULES[rule](int(x), int(y)) for x, y in PAIRS]


@pytest.mark.parametrize("rule", RULES)
def test_no_divisor_ends_the_process(rule: str) -> None:
    found = computed(rule, np.array([5, LOWEST], np.int32), np.array([0, -1], np.int32))
    assert found.shape == (2,)
