"""Sums of products of 8-bit integers are exact in int32, also where fp32 has not all integers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper
from onnx.reference import ReferenceEvaluator

import triune
from support.graphs import model_of
from triune.core.datatypes import Array
from triune.graph.normalize import normalize
from triune.graph.verify import Verdict

RNG = np.random.default_rng(0)


def with_weights(text: str, weights: Array, zero: Array | None = None) -> ModelProto:
    model = model_of(text)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    if zero is not None:
        model.graph.initializer.append(numpy_helper.from_array(zero, "z"))
    return model


def run(model: ModelProto, x: Array) -> Array:
    # ONNX Runtime's optimizations round the operands of products with 8-bit weights.
    (result,) = ReferenceEvaluator(model).run(None, {"x": x})
    return result


def count(model: ModelProto, op_type: str) -> int:
    return sum(node.op_type == op_type for node in model.graph.node)


# The largest sum of 255 * |w|, and the digits that it takes: of 8, 4, 2 or 1 bits.
@pytest.mark.parametrize(("size", "num_products"), [(500, 1), (600, 2), (3072, 2), (20_000, 4), (60_000, 8)])
def test_a_matrix_product_of_large_numbers_is_exact(size: int, num_products: int) -> None:
    weights = np.full((size, 3), 127, np.int8) - np.arange(3).astype(np.int8)
    model = with_weights(f"g (uint8[2,{size}] x) => (int32[2,3] m) {{ m = MatMulInteger(x, w) }}", weights)
    plain = normalize(model)
    assert count(plain, "MatMul") == num_products
    for x in (RNG.integers(230, 256, (2, size)), RNG.integers(0, 256, (2, size))):
        expected = x.astype(np.int64) @ weights.astype(np.int64)
        np.testing.assert_array_equal(run(plain, x.astype(np.uint8)), expected)


def test_zero_points_of_columns_count_as_weights() -> None:
    weights, zero = RNG.integers(0, 4, (900, 3)).astype(np.uint8), np.array([0, 100, 250], np.uint8)
    text = "g (uint8[2,900] x) => (int32[2,3] m) <uint8 a = {255}> { m = MatMulInteger(x, w, a, z) }"
    plain = normalize(with_weights(text, weights, zero))
    assert count(plain, "MatMul") == 2
    x = RNG.integers(0, 10, (2, 900)).astype(np.uint8)
    np.testing.assert_array_equal(
        run(plain, x), (x.astype(np.int64) - 255) @ (weights.astype(np.int64) - zero.astype(np.int64))
    )


def test_weights_that_are_inputs_count_as_large() -> None:
    text = "g (uint8[2,n] x, int8[n,3] v) => (int32[2,3] m) { m = MatMulInteger(x, v) }"
    plain = normalize(model_of(text))
    assert count(plain, "MatMul") == 8
    x, v = np.full((2, 32_768), 255, np.uint8), np.full((32_768, 3), -128, np.int8) + np.arange(3, dtype=np.int8)
    (found,) = ReferenceEvaluator(plain).run(None, {"x": x, "v": v})
    np.testing.assert_array_equal(found, x.astype(np.int64) @ v.astype(np.int64))
    text = "g (uint8[2,200] x, int8[200,3] v) => (int32[2,3] m) { m = MatMulInteger(x, v) }"
    assert count(normalize(model_of(text)), "MatMul") == 1


@pytest.mark.parametrize("node", ["d = Sub (m, far)", "n = MatMulInteger (x, v) d = Sub (m, n)"])
def test_what_is_left_of_large_sums_is_exact(node: str) -> None:
    """A difference of two sums is taken before the cast."""
    weights = RNG.integers(90, 128, (3072, 3)).astype(np.int8)
    others = weights.copy()
    others[::1024] -= 1
    constants = "<int32[3] far = {70000000, 70000000, 70000000}>"
    model = with_weights(
        f"""g (uint8[2,3072] x) => (float[2,3] y) {constants} {{
        m = MatMulInteger (x, w) {node} y = Cast <to = 1> (d) }}""",
        weights,
    )
    model.graph.initializer.append(numpy_helper.from_array(others, "v"))
    x = RNG.integers(200, 256, (2, 3072)).astype(np.uint8)
    np.testing.assert_array_equal(run(normalize(model), x), run(model, x))


def test_sums_that_become_floats_take_one_product() -> None:
    """fp32 has no more than 24 bits of the sum anyway."""
    text = """g (uint8[2,3072] x) => (float[2,3] y) <int32[3] bias = {1, 2, 3}> {
        m = MatMulInteger(x, w) a = Add(m, bias) y = Cast<to = 1>(a) }"""
    weights = np.full((3072, 3), 127, np.int8)
    assert count(normalize(with_weights(text, weights)), "MatMul") == 1
    read_twice = text.replace("(float[2,3] y)", "(float[2,3] y, int32[2,3] a)")
    assert count(normalize(with_weights(read_twice, weights)), "MatMul") == 2


@pytest.mark.parametrize("target", ["m.mlpackage", "m.aimodel"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_convolutions_and_what_follows_are_exact_in_both_forms(tmp_path: Path, target: str, precision: str) -> None:
    text = """g (uint8[1,70,5,5] x) => (int32[1,2,3,3] r) <int32 k = {1000}> {
        m = ConvInteger(x, w) r = Mod(m, k) }"""
    weights = np.full((2, 70, 3, 3), 127, np.int8) - np.arange(3).astype(np.int8)
    onnx.save(with_weights(text, weights), tmp_path / "m.onnx")
    x = RNG.integers(230, 256, (1, 70, 5, 5)).astype(np.uint8)
    done = triune.convert(tmp_path / "m.onnx", tmp_path / target, precision=precision, verify=True, inputs={"x": x})
    assert [(each.verdict, each.error) for each in done.outputs] == [(Verdict.RIGHT, 0)]
