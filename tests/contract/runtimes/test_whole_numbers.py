"""Sums of whole numbers are exact on every unit, also where fp32 has not all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from contract.runtimes.conftest import Bench
from triune.core.datatypes import Array
from triune.core.errors import UnsupportedError

RNG = np.random.default_rng(0)
U8, I8, I32, I64 = np.uint8, np.int8, np.int32, np.int64


def elem_type(array: Array) -> int:
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def one_node(
    op: str,
    inputs: Mapping[str, Array],
    kind: Any,
    rank: int,
    *,
    constants: Mapping[str, Array] | None = None,
    is_free: bool = False,
    more: Sequence[Any] = (),
    **attributes: Any,
) -> ModelProto:
    """A model of a node that reads inputs and then constants, and of the nodes `more`, which give "y" of "s"."""
    constants = constants or {}
    node = helper.make_node(op, [*inputs, *constants], ["s" if more else "y"], **attributes)
    given = [
        helper.make_tensor_value_info(
            name, elem_type(each), [f"{name}{axis}" for axis in range(each.ndim)] if is_free else each.shape
        )
        for name, each in inputs.items()
    ]
    result = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(kind)), [None] * rank)
    initializers = [numpy_helper.from_array(each, name) for name, each in constants.items()]
    graph = helper.make_graph([node, *more], "g", given, [result], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def extreme(shape: tuple[int, ...], dtype: Any, *, is_low: bool) -> Array:
    """The lowest or the highest number, and some beside it."""
    limits = np.iinfo(dtype)
    near = RNG.integers(0, 2, shape)
    return (limits.min + near if is_low else limits.max - near).astype(dtype)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("form", ["constant", "input", "free"])
@pytest.mark.parametrize("terms", [1024, 3000, 8192])
@pytest.mark.parametrize(("left", "right", "is_low"), [(U8, I8, True), (U8, U8, False), (I8, I8, True)])
def test_products_of_8_bits(bench: Bench, left: Any, right: Any, *, is_low: bool, terms: int, form: str) -> None:
    a = extreme((3, terms), left, is_low=left is I8)
    b = extreme((terms, 5), right, is_low=is_low)
    b[:, 1] = RNG.integers(0, 100, terms)
    inputs = {"a": a} if form == "constant" else {"a": a, "b": b}
    constants = {"b": b} if form == "constant" else {}
    model = one_node("MatMulInteger", inputs, I32, 2, constants=constants, is_free=form == "free")
    (found,) = bench.load(model).run(inputs, ["y"]).values()
    np.testing.assert_array_equal(found, a.astype(I64) @ b.astype(I64))


def test_zero_points_double_what_is_summed(bench: Bench) -> None:
    a, b = np.zeros((3, 5000), U8), extreme((5000, 4), I8, is_low=True)
    zeros = {"za": np.array(255, U8), "zb": np.array([127, 0, -128, 1], I8)}
    (found,) = (
        bench.load(one_node("MatMulInteger", {"a": a, "b": b, **zeros}, I32, 2))
        .run({"a": a, "b": b, **zeros}, ["y"])
        .values()
    )
    np.testing.assert_array_equal(found, np.full((3, 5000), -255) @ (b.astype(I64) - zeros["zb"]))


@pytest.mark.sampled(5)
@pytest.mark.parametrize("groups", [1, 2, 300])
@pytest.mark.parametrize("is_constant", [True, False])
def test_convolutions_of_8_bits(bench: Bench, groups: int, *, is_constant: bool) -> None:
    x, w = extreme((1, 600, 3, 4), U8, is_low=False), extreme((600, 600 // groups, 3, 2), U8, is_low=False)
    inputs = {"x": x} if is_constant else {"x": x, "w": w}
    constants = {"w": w} if is_constant else {}
    model = one_node("ConvInteger", inputs, I32, 4, constants=constants, group=groups, pads=[1, 0, 1, 1])
    (found,) = bench.load(model).run(inputs, ["y"]).values()
    padded = np.pad(x.astype(I64), [(0, 0), (0, 0), (1, 1), (0, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded[0], (3, 2), axis=(1, 2))
    parts = windows.reshape(groups, -1, *windows.shape[1:]), w.astype(I64).reshape(groups, -1, *w.shape[1:])
    np.testing.assert_array_equal(found[0], np.einsum("gcijkl,gockl->goij", *parts).reshape(600, 3, 4))


def test_what_is_added_to_a_product_is_whole_too(bench: Bench) -> None:
    a, b = RNG.integers(0, 256, (4, 64)).astype(U8), RNG.integers(-128, 128, (64, 6)).astype(I8)
    bias = np.full(6, 2**28 + 1, I32)
    model = one_node(
        "MatMulInteger", {"a": a}, I32, 2, constants={"b": b}, more=[helper.make_node("Add", ["s", "c"], ["y"])]
    )
    model.graph.initializer.append(numpy_helper.from_array(bias, "c"))
    (found,) = bench.load(model).run({"a": a}, ["y"]).values()
    np.testing.assert_array_equal(found, a.astype(I64) @ b.astype(I64) + bias)


@pytest.mark.parametrize("dtype", [I32, I64])
@pytest.mark.parametrize("form", ["constant", "input", "free"])
def test_products_of_larger_integers(bench: Bench, dtype: Any, form: str) -> None:
    a, b = RNG.integers(-60_000, 60_000, (3, 200)).astype(dtype), RNG.integers(-90, 90, (200, 5)).astype(dtype)
    inputs = {"a": a} if form == "constant" else {"a": a, "b": b}
    model = one_node(
        "MatMul", inputs, dtype, 2, constants={"b": b} if form == "constant" else {}, is_free=form == "free"
    )
    (found,) = bench.load(model).run(inputs, ["y"]).values()
    np.testing.assert_array_equal(found, a @ b)


def test_gemm_of_integers(bench: Bench) -> None:
    a, b = RNG.integers(-60_000, 60_000, (200, 3)).astype(I32), RNG.integers(-90, 90, (5, 200)).astype(I32)
    bias = np.full(5, 2**28 + 1, I32)
    model = one_node("Gemm", {"a": a, "b": b, "c": bias}, I32, 2, transA=1, transB=1)
    (found,) = bench.load(model).run({"a": a, "b": b, "c": bias}, ["y"]).values()
    np.testing.assert_array_equal(found, a.T @ b.T + bias)


@pytest.mark.parametrize("dtype", [I32, I64])
@pytest.mark.parametrize("op", ["ReduceSum", "ReduceL1", "CumSum"])
def test_sums_of_integers(bench: Bench, op: str, dtype: Any) -> None:
    x = RNG.integers(2**18, 2**19, (3, 1000, 2)).astype(dtype)
    if op == "CumSum":
        model, expected = one_node(op, {"x": x}, dtype, 3, constants={"axis": np.array(1)}), np.cumsum(x, 1)
    else:
        model = one_node(op, {"x": x}, dtype, 2, constants={"axes": np.array([1])}, keepdims=0, is_free=True)
        expected = x.sum(1)
    (found,) = bench.load(model).run({"x": x}, ["y"]).values()
    np.testing.assert_array_equal(found, expected.astype(dtype))


def test_a_sum_over_all_axes_and_one_of_nothing(bench: Bench) -> None:
    x = RNG.integers(2**18, 2**19, (3, 100, 2)).astype(I32)
    executable = bench.load(one_node("ReduceSum", {"x": x}, I32, 3, is_free=True))
    for some in (x, x[:, :0]):
        (found,) = executable.run({"x": some}, ["y"]).values()
        np.testing.assert_array_equal(found, some.sum(keepdims=True, dtype=I32))


def test_quantized_products_are_those_of_whole_numbers(bench: Bench) -> None:
    a, b = RNG.integers(0, 256, (8, 3000)).astype(U8), RNG.integers(-128, 128, (3000, 6)).astype(I8)
    constants = {
        "sa": np.float32(0.013),
        "za": U8(120),
        "b": b,
        "sb": np.float32(0.007),
        "zb": I8(0),
        "sy": np.float32(0.5),
        "zy": U8(128),
    }
    arrays = {name: np.asarray(each) for name, each in constants.items()}
    (found,) = bench.load(one_node("QLinearMatMul", {"a": a}, U8, 2, constants=arrays)).run({"a": a}, ["y"]).values()
    total = (a.astype(I64) - 120) @ b.astype(I64)
    scaled = total.astype(np.float32) * (np.float32(0.013) * np.float32(0.007) / np.float32(0.5))
    np.testing.assert_array_equal(found, np.clip(np.rint(scaled) + 128, 0, 255).astype(U8))


@pytest.mark.parametrize("op", ["Einsum", "ReduceMean"])
def test_what_openvino_sums_inexactly_is_refused(bench: Bench, op: str) -> None:
    x = RNG.integers(-9, 9, (3, 4)).astype(I32)
    attributes = {"equation": "ij->i"} if op == "Einsum" else {"keepdims": 0}
    model = one_node(op, {"x": x}, I32, 1 if op == "Einsum" else 0, **attributes)
    if bench.is_openvino:
        with pytest.raises(UnsupportedError, match=rf"{op} 'y' adds integers, .* exact up to 2\^24 only; "):
            bench.load(model)
    else:
        (found,) = bench.load(model).run({"x": x}, ["y"]).values()
        np.testing.assert_array_equal(found, x.sum(1) if op == "Einsum" else np.trunc(x.mean()).astype(I32))
