"""Divisions of whole numbers at the ends of int32, as Python computes them, and of floats, as numpy does."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from triune.graph.raising import division
from triune.graph.raising.graph import Graph, Root, Tensor
from triune.graph.raising.types import DType

LOWEST, HIGHEST = -(2**31), 2**31 - 1
NUMBERS = [LOWEST, LOWEST + 1, -16777219, -7, -1, 0, 1, 7, 16777219, 100000001, HIGHEST - 1, HIGHEST]
DIVISORS = [LOWEST, -16777217, -3, -2, 1, 2, 3, 256, 16777217, HIGHEST]
PAIRS = np.array([(x, y) for x in NUMBERS for y in DIVISORS], np.int32)


def truncated(x: int, y: int) -> int:
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


KINDS = {"int32": "INT32", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
RULES: dict[str, Any] = {
    "floor_quotient": lambda x, y: x // y,
    "floor_remainder": lambda x, y: x % y,
    "truncated_quotient": truncated,
    "truncated_remainder": lambda x, y: x - truncated(x, y) * y,
}


def computed(rule: str, x: Any, y: Any) -> Any:
    graph = Graph(Root(["x", "y", "z"]))
    shape, kind = x.shape, DType[KINDS[x.dtype.name]]
    result = getattr(division, rule)(graph, Tensor("x", kind, shape), Tensor("y", kind, shape))
    elem_type = helper.np_dtype_to_tensor_dtype(x.dtype)
    values = [helper.make_tensor_value_info(name, elem_type, shape) for name in ("x", "y", result.name)]
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


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("rule", "right"), [("floor_quotient_of_floats", np.floor_divide), ("floor_remainder_of_floats", np.mod)]
)
def test_floats_are_divided_by_their_exact_remainder(rule: str, right: Any, dtype: type) -> None:
    # 0.3 is rounded up or down: its multiples, rounded too, are now just below, now just above.
    divisors = np.array([0.3, -0.3, 0.7, -0.01, 3, 1e-3], dtype)
    multiples = np.multiply.outer(np.arange(-60, 61).astype(dtype), np.abs(divisors))
    specials = np.array([np.inf, -np.inf, np.nan, 0, -0.0, 1, -1, 6e4], dtype)
    x = np.concatenate([multiples.ravel(), np.repeat(specials, len(specials))])
    y = np.concatenate([np.broadcast_to(divisors, multiples.shape).ravel(), np.tile(specials, len(specials))])
    with np.errstate(all="ignore"):
        expected = right(x, y)
        assert (np.floor(x / y) != np.floor_divide(x, y))[: multiples.size].any()
    np.testing.assert_array_equal(computed(rule, x, y), expected)
