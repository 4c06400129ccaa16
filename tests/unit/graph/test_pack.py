"""Packed weights: one form for all exporters' ways, kept through normalization and the Neural Engine's layout."""

from collections import Counter

import numpy as np
import pytest
from onnx import numpy_helper

from support.graphs import model_of, ops_of
from support.lowered import plain_answers
from support.packed_models import FORMS, packed_model, x_of
from triune.graph import weights
from triune.graph.ane import ane_layout
from triune.graph.check import evaluate
from triune.graph.core_ops import CORE_OPS
from triune.graph.normalize import normalize
from triune.graph.packed import SMALL, packed_of

WHOLE = {"n bits 4 with float zeros"}


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_weights_stay_packed(form: str, is_large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LARGE_BYTES", 64 if is_large else 1 << 20)
    source = packed_model(form)
    model = normalize(source)
    ops = Counter(ops_of(model))
    assert set(ops) <= CORE_OPS
    assert ops["Cast"] == ops["Mul"] == ops["Transpose"] == 0
    assert ops["DequantizeLinear"] == (0 if form in WHOLE else 1)
    inputs = {"x": x_of(form)}
    (expected,) = plain_answers(source, inputs)
    np.testing.assert_allclose(evaluate(model, inputs)[0], expected, atol=1e-4)
    if form == "gemm":
        return
    laid = ane_layout(model)
    assert Counter(ops_of(laid))["Conv"] == 1
    np.testing.assert_allclose(evaluate(laid, inputs)[0], expected, atol=1e-4)
    tensors = {tensor.name: tensor for tensor in laid.graph.initializer}
    packed = [packed_of(node, tensors.get) for node in laid.graph.node if node.op_type == "DequantizeLinear"]
    assert [each.elem_type in SMALL for each in packed if each is not None] == [True] * len(packed)


@pytest.mark.parametrize(
    "body",
    [
        # Of an input that is no constant, of a scale for two axes, of zero points that are no whole numbers.
        "<float[2] s = {1, 2}> { f = Cast <to = 1> (x)  y = Mul (f, s) }",
        "<int8[2,2] q = {1,2,3,4}, float[2,2] s = {1,2,3,4}>"
        " { f = Cast <to = 1> (q)  m = Mul (f, s)  y = Add (m, x2) }",
        "<int8[2] q = {1,2}, float[1] z = {0.5}, float[1] s = {2}>"
        " { f = Cast <to = 1> (q)  d = Sub (f, z)  m = Mul (d, s)  y = Add (m, x2) }",
    ],
)
def test_what_only_looks_packed_stays(body: str) -> None:
    text = f"agraph (int8[2,2] x, float[2,2] x2) => (float[2,2] y) {body}"
    assert "DequantizeLinear" not in ops_of(normalize(model_of(text)))


def test_a_dequantized_constant_is_what_its_parts_say() -> None:
    text = """agraph (float[2] x) => (float[2,4] y)
    <uint8[2,4] q = {1,2,3,4,5,6,7,8}, float[2,2] s = {1, 10, 100, 1000}, uint8[2,2] z = {1,1,1,0}>
    { w = DequantizeLinear <axis = 1, block_size = 2> (q, s, z)  y = Identity (w) }"""
    model = model_of(text)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    packed = packed_of(model.graph.node[0], tensors.get)
    assert packed is not None
    assert packed.is_blocked
    np.testing.assert_array_equal(packed.whole(), [[0, 1, 20, 30], [400, 500, 7000, 8000]])
    np.testing.assert_array_equal(packed.transposed(1, 0).whole(), packed.whole().T)
    assert numpy_helper.to_array(tensors["q"]).shape == packed.data.shape
