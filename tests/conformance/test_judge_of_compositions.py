"""The judge of random programs lets roundings of sums pass, and nothing that is more."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from support.compositions.bounds import FP32, SUMS, Oracle, differences
from support.compositions.building import Growing, Value
from support.compositions.judging import complaint

TERMS = 32
SHAPE = (3, 2, 1, TERMS)


def _weights(g: Growing, *shape: int, axis: int) -> Value:
    """The second half along `axis` is the first again, so that inputs of opposite halves cancel."""
    half = g.rng.standard_normal([size // 2 if index == axis else size for index, size in enumerate(shape)])
    return g.constant(np.concatenate([half, half], axis).astype(np.float32))


def _gemm(g: Growing, x: Value) -> Value:
    rows = g.add("Flatten", x, axis=-1)[0]
    return g.add("Gemm", rows, _weights(g, TERMS, 3, axis=0), alpha=-0.5)[0]


def _transposed(g: Growing, x: Value) -> Value:
    return g.add("ConvTranspose", x, _weights(g, 2, 2, 1, TERMS, axis=3), pads=[0, TERMS - 1] * 2)[0]


SUMMED: dict[str, Callable[[Growing, Value], Value]] = {
    "MatMul": lambda g, x: g.add("MatMul", x, _weights(g, TERMS, 3, axis=0))[0],
    "Gemm": _gemm,
    "Einsum": lambda g, x: g.add("Einsum", x, _weights(g, TERMS, 3, axis=0), equation="abck,kn->abcn")[0],
    "Conv": lambda g, x: g.add("Conv", x, _weights(g, 2, 2, 1, TERMS, axis=3))[0],
    "ConvTranspose": _transposed,
    "ReduceSum": lambda g, x: g.add("ReduceSum", x, g.integers(-1))[0],
    "ReduceMean": lambda g, x: g.add("ReduceMean", x, g.integers(-1))[0],
    "CumSum": lambda g, x: g.add("CumSum", x, g.constant(np.int64(3)))[0],
    "AveragePool": lambda g, x: g.add("AveragePool", x, kernel_shape=[1, TERMS])[0],
    "GlobalAveragePool": lambda g, x: g.add("GlobalAveragePool", x)[0],
}
"""By operator: sums along the last axis of a value of `SHAPE`."""


@pytest.fixture
def x() -> Any:
    """Numbers whose sum along the last axis is nearly zero in the first of the batch."""
    rng = np.random.default_rng(5)
    half = rng.uniform(50, 300, (1, *SHAPE[1:-1], TERMS // 2))
    cancelling = np.concatenate([half, -half * (1 + 1e-6 * rng.uniform(-1, 1, half.shape))], -1)
    return np.concatenate([cancelling, 100 * rng.standard_normal((2, *SHAPE[1:]))]).astype(np.float32)


def _judged(op: str) -> tuple[Oracle, str]:
    g = Growing((len(op), 1))
    last = SUMMED[op](g, g.input(TensorProto.FLOAT, SHAPE))
    return Oracle(g.model([last]), FP32), last.name


def test_every_sum_is_tried() -> None:
    assert set(SUMMED) == SUMS


@pytest.mark.parametrize("op", SUMMED)
def test_a_term_dropped_where_all_cancel_is_found(op: str, x: Any) -> None:
    oracle, name = _judged(op)
    wrong = x.copy()
    wrong[0, 0, 0, np.argmin(np.abs(x[0, 0, 0]))] = 0
    found = complaint(oracle, {"x0": x}, oracle.answers({"x0": wrong}))
    assert f"'{name}' at (0, " in found


@pytest.mark.parametrize("op", SUMMED)
def test_channels_in_another_order_are_found(op: str, x: Any) -> None:
    oracle, name = _judged(op)
    assert f"'{name}' at" in complaint(oracle, {"x0": x}, oracle.answers({"x0": x[:, ::-1].copy()}))


def test_a_quotient_by_zero_is_of_what_roundings_leave_of_its_sign() -> None:
    """Gelu of -9 is -1e-18, which ONNX Runtime's kernel makes zero: both -inf and no number are right."""
    g = Growing((1, 1))
    small = g.add("Gelu", g.input(TensorProto.FLOAT, (2,)))[0]
    name = g.add("Div", small, g.constant(np.zeros(2, np.float32)))[0].name
    oracle, feed = Oracle(g.model([g.values[-1]]), FP32), {"x0": np.array([-9.2, 1], np.float32)}
    for first in (-np.inf, np.nan):
        assert complaint(oracle, feed, {name: np.array([first, np.inf], np.float32)}) == ""
    for second in (-np.inf, np.nan, 0):
        assert f"'{name}' at (1,)" in complaint(oracle, feed, {name: np.array([np.nan, second], np.float32)})


@pytest.mark.parametrize("op", ["MatMul", "ReduceSum"])
def test_another_order_of_summing_is_right(op: str, x: Any) -> None:
    oracle, name = _judged(op)
    constants = [numpy_helper.to_array(each) for each in oracle.model.graph.initializer]
    weights = constants[0] if op == "MatMul" else np.ones((TERMS, 1), np.float32)
    exact = (x.astype(np.float64) @ weights.astype(np.float64)).astype(np.float32)
    assert differences(oracle.answers({"x0": x})[name], exact, oracle.floor)[0].any()
    assert complaint(oracle, {"x0": x}, {name: exact}) == ""


def test_what_cancels_in_a_layer_norm_may_be_rounded() -> None:
    g = Growing((7,))
    x = g.input(TensorProto.FLOAT, (1, 4))
    normal = g.add("LayerNormalization", x, g.constant(np.float32([1, 1, 1, 1])), g.constant(np.float32([1, 0, 0, 0])))[
        0
    ]
    last = g.add("Reciprocal", normal)[0]
    oracle = Oracle(g.model([last]), FP32)
    # The norm of the first is nearly -1, its bias 1: a rounding is a fiftieth of what is left.
    feed = {"x0": np.float32([[-1, 1, -1, 1 + 2**-20]])}
    right = oracle.answers(feed)
    assert complaint(oracle, feed, {last.name: right[last.name] * np.float32([1.02, 1, 1, 1])}) == ""
    assert "differ" in complaint(oracle, feed, {last.name: right[last.name] * np.float32([1, 1.001, 1, 1])})
