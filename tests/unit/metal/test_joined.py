"""Which neighbours are one operation, and that they compute the same."""

from typing import Any

import numpy as np
import pytest

from support.graphs import answers, model_of
from triune.metal.function import Function
from triune.metal.joined import LINEAR, SUM_NORM
from triune.metal.lower import lower

WEIGHTS = "float[4,6] w = {1,2,3,4,5,6,2,3,4,5,6,1,3,4,5,6,1,2,4,5,6,1,2,3}, float[6] b = {1,-2,3,-4,5,-6}"
SCALES = "float[4] s = {1,2,3,4}, float[4] t = {0.5,0.25,0,-1}"

MODELS: dict[str, tuple[str, list[str]]] = {
    "a bias": (f"g (float[n,3,4] x) => (float[n,3,6] y) <{WEIGHTS}> {{ a = MatMul(x, w) y = Add(b, a) }}", [LINEAR]),
    "a bias of one row": (
        f"g (float[4] x) => (float[6] y) <{WEIGHTS}> {{ a = MatMul(x, w) y = Add(a, b) }}",
        [LINEAR],
    ),
    "a product that is read twice": (
        f"g (float[n,4] x) => (float[n,6] y) <{WEIGHTS}> {{ a = MatMul(x, w) c = Add(a, b) y = Mul(a, c) }}",
        ["MatMul", "Add", "Mul"],
    ),
    "a product that is an output": (
        f"g (float[n,4] x) => (float[n,6] a, float[n,6] y) <{WEIGHTS}> {{ a = MatMul(x, w) y = Add(a, b) }}",
        ["MatMul", "Add"],
    ),
    "a bias that makes the result larger": (
        f"""g (float[4] x) => (float[6,6] y) <{WEIGHTS}, float[6,1] d = {{1,2,3,4,5,6}}> {{
            a = MatMul(x, w) y = Add(a, d) }}""",
        ["MatMul", "Add"],
    ),
    "a bias that is computed": (
        f"g (float[n,4] x, float[6] d) => (float[n,6] y) <{WEIGHTS}> {{ a = MatMul(x, w) y = Add(a, d) }}",
        ["MatMul", "Add"],
    ),
    "a sum and its norm": (
        f"""g (float[n,3,4] x, float[n,3,4] z) => (float[n,3,4] y) <{SCALES}> {{
            a = Add(x, z) y = LayerNormalization(a, s, t) }}""",
        [SUM_NORM],
    ),
    "a sum that is also read": (
        f"""g (float[n,4] x, float[n,4] z) => (float[n,4] y) <{SCALES}> {{
            a = Add(x, z) c = LayerNormalization<axis = 1, epsilon = 0.5>(a, s) y = Mul(a, c) }}""",
        [SUM_NORM, "Mul"],
    ),
    "a sum of other shapes": (
        f"""g (float[n,3,4] x, float[4] z) => (float[n,3,4] y) <{SCALES}> {{
            a = Add(x, z) y = LayerNormalization(a, s, t) }}""",
        [SUM_NORM],
    ),
    "a norm over two axes": (
        f"""g (float[n,1,4] x, float[n,1,4] z) => (float[n,1,4] y) <{SCALES}> {{
            a = Add(x, z) y = LayerNormalization<axis = 1>(a, s, t) }}""",
        ["Add", "LayerNormalization"],
    ),
    "a norm of a sum with a constant": (
        f"g (float[n,4] x) => (float[n,4] y) <{SCALES}> {{ a = Add(x, t) y = LayerNormalization(a, s, t) }}",
        ["Add", "LayerNormalization"],
    ),
    "no rows": (
        f"g (float[m,4] e) => (float[m,6] y) <{WEIGHTS}> {{ a = MatMul(e, w) y = Add(a, b) }}",
        [LINEAR],
    ),
}
THREE = f"""g (float[n,4] x) => (float[n,6] p, float[n,6] q, float[n,6] r) <{WEIGHTS}> {{
    a = MatMul(x, w) p = Add(a, b) c = MatMul(x, w) q = Add(b, c) d = MatMul(x, w) r = Add(d, b) }}"""
GELU = """g (float[n,4] x) => (float[n,4] y) <float r = {1.4142135}, float o = {1}, float h = {0.5}> {
    a = Div(x, r) c = Erf(a) d = Add(c, o) e = Mul(x, d) y = Mul(e, h) }"""

NORM = f"""g (float[n,4] x, float[n,4] z) => (float[n,4] y)
    <{SCALES}, float[1] e = {{1e-5}}, int64[1] l = {{-1}}, float[1] p = {{2}}> {{
    a = Add(x, z) m = ReduceMean(a, l) c = Sub(a, m) d = Pow(c, p) v = ReduceMean(d, l) f = Add(v, e) r = Sqrt(f)
    q = Div(c, r) h = Mul(q, s) y = Add(h, t) }}"""


def _inputs(model: Any) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    sizes = {"n": 2, "m": 0}
    return {
        value.name: rng.standard_normal(
            [dim.dim_value or sizes[dim.dim_param] for dim in value.type.tensor_type.shape.dim], dtype=np.float32
        )
        for value in model.graph.input
    }


def _require_right(text: str, kinds: list[str], precision: Any) -> None:
    model = model_of(text, opset=21)
    program = lower(model, precision)
    assert [step.node.op_type for step in program._plans.main.steps] == kinds
    names = [value.name for value in model.graph.output]
    given = _inputs(model)
    found = Function(program, dtypes={name: np.dtype(np.float32) for name in names})(given, names)
    for each, right in zip(found, answers(model, given), strict=True):
        assert each.shape == right.shape
        scale = np.abs(right).max(initial=1)
        np.testing.assert_allclose(each, right, rtol=0, atol=scale * (1e-6 if precision == "source" else 0.02))


@pytest.mark.parametrize("precision", ["source", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_neighbours_are_joined_where_the_result_is_the_same(name: str, precision: str) -> None:
    _require_right(*MODELS[name], precision)


def test_products_of_one_value_are_one_product() -> None:
    _require_right(THREE, [LINEAR, "Split"], "source")


def test_gelu_is_one_operation() -> None:
    _require_right(GELU, ["Gelu"], "bf16")


@pytest.mark.parametrize("precision", ["source", "bf16"])
def test_a_layer_norm_in_parts_is_one_operation(precision: str) -> None:
    _require_right(NORM, [SUM_NORM], precision)
