"""Whole numbers raised to constants: exact where fp32 is not, and of the base's type."""

import numpy as np
import pytest
from onnx import TensorProto

from support.graphs import model_of, ops_of
from triune.graph.check import evaluate
from triune.graph.normalize import normalize

BASES = [3, -4097, 4097, 4999, 0]


@pytest.mark.parametrize(("kind", "dtype"), [("int32", np.int32), ("int64", np.int64)])
@pytest.mark.parametrize("exponent", ["float e = {2}", "double[1] e = {3}", "int64 e = {2}", "float e = {1}"])
def test_a_power_of_whole_numbers_is_a_product_of_them(kind: str, dtype: type, exponent: str) -> None:
    number = int(exponent.partition("{")[2][0])
    model = model_of(f"agraph ({kind}[5] x) => ({kind}[5] y) <{exponent}> {{ y = Pow (x, e) }}")
    normal = normalize(model)
    assert set(ops_of(normal)) - {"Identity"} == ({"Mul"} if number > 1 else set())
    bases = np.array(BASES[: 5 if number < 3 else 1] + [7] * (0 if number < 3 else 4), dtype)
    (answer,) = evaluate(normal, {"x": bases})
    assert answer.dtype == dtype
    assert answer.tolist() == [int(each) ** number for each in bases]


def test_a_large_exponent_wraps_as_whole_numbers_do() -> None:
    model = model_of("agraph (int32[3] x) => (int32[3] y) <float e = {45}> { y = Pow (x, e) }")
    (answer,) = evaluate(normalize(model), {"x": np.array([-1, 2, 3], np.int32)})
    expected = [-1, 0, (3**45 + 2**31) % 2**32 - 2**31]
    assert answer.tolist() == expected


def test_several_exponents_become_whole_numbers() -> None:
    model = model_of("agraph (int32[2,1] x) => (int32[2,3] y) <float[3] e = {0, 1, 2}> { y = Pow (x, e) }")
    normal = normalize(model)
    assert {value.type.tensor_type.elem_type for value in normal.graph.value_info} <= {TensorProto.INT32}
    assert normal.graph.initializer[0].data_type == TensorProto.INT32
    (answer,) = evaluate(normal, {"x": np.array([[4097], [-4099]], np.int32)})
    assert answer.tolist() == [[1, 4097, 4097**2], [1, -4099, 4099**2]]


@pytest.mark.parametrize("exponent", ["float e = {0.5}", "float e = {-1}", "float[0] e = {}"])
def test_fractions_and_what_is_below_0_stay(exponent: str) -> None:
    kind = "int32[0]" if "[0]" in exponent else "int32[1]"
    model = model_of(f"agraph (int32[1] x) => ({kind} y) <{exponent}> {{ y = Pow (x, e) }}")
    assert "Mul" not in ops_of(normalize(model))
