"""Models get the bodies of their custom operators."""

from typing import Any

import numpy as np
import pytest
from onnx import checker

from support.custom_ops import in_numpy, with_body
from support.graphs import answers, model_of, ops_of
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.custom import CustomOp, CustomOps, custom_op, read_custom_ops
from triune.graph.custom.resolve import numpy_nodes, require_bodies, with_bodies

SWISH = CustomOp.of_body("""<domain: "my.domain", opset_import: ["" : 20]> Swish <beta: float = 1.0> (x) => (y) {
    b = Constant <value_float: float = @beta> ()  s = Mul (x, b)  g = Sigmoid (s)  y = Mul (x, g) }""")
RANKS = custom_op("my.domain::Ranks", outputs=[np.int64, "x"])(lambda x, w, *, axis=-1: (x, x))
X = np.array([[-1, 0.5, 3]], np.float32)


def swish(x: Any, beta: float = 1.0) -> Any:
    return x / (1 + np.exp(-beta * x))


def ops_with(*ops: CustomOp) -> CustomOps:
    return read_custom_ops(list(ops))


@pytest.mark.parametrize("opset", [20, 17, 13])
def test_bodies_replace_operators(opset: int) -> None:
    model = with_body(opset)
    whole = with_bodies(model, ops_with(SWISH))
    assert whole is not None
    assert ops_of(whole).count("Sigmoid") == 2
    assert len(whole.functions) == 0
    checker.check_model(whole, full_check=True)
    (y,) = answers(whole, {"x": X})
    np.testing.assert_allclose(y, swish(swish(X, 2.0)) + X, rtol=1e-5)
    assert ops_of(model).count("Swish") == 2


def test_a_body_of_other_operators_is_refused() -> None:
    """In set 11 the axis of Softmax is 1 unless it is given; ONNX Runtime would compute it so."""
    body = '<domain: "my", opset_import: ["" : 20]> Last (x) => (y) { y = Softmax (x) }'
    model = model_of("g (float[2,2,2] x) => (float[2,2,2] y) { y = my.Last(x) }", opset=11, imports=', "my" : 1')
    with pytest.raises(
        InvalidArgumentError, match="is of operator set 20, and the model of set 11, .* differ: Softmax; write"
    ):
        with_bodies(model, ops_with(CustomOp.of_body(body)))


def test_a_body_that_calls_itself_is_refused() -> None:
    body = '<domain: "my", opset_import: ["" : 20, "my" : 1]> Again (x) => (y) { y = my.Again (x) }'
    model = model_of("g (float[2] x) => (float[2] y) { y = my.Again(x) }", opset=20, imports=', "my" : 1')
    with pytest.raises(InvalidArgumentError, match="custom operators .* 'my::Again' calls itself"):
        with_bodies(model, ops_with(CustomOp.of_body(body)))


def test_operators_of_bodies_and_branches_are_replaced() -> None:
    twice = """<domain: "my", opset_import: ["" : 20, "my.domain" : 1]> Twice (x) => (y) {
        a = my.domain.Swish (x) y = my.domain.Swish <beta = 2.0> (a) }"""
    text = """g (float[1,3] x, bool yes) => (float[1,3] y) {
        y = If (yes) <then_branch = t () => (float[1,3] a) { a = my.Twice(x) },
                      else_branch = e () => (float[1,3] b) { b = Neg(x) }> }"""
    model = model_of(text, opset=20, imports=', "my" : 1')
    whole = with_bodies(model, ops_with(CustomOp.of_body(twice), SWISH))
    assert whole is not None
    (y,) = answers(whole, {"x": X, "yes": np.array(True)})
    np.testing.assert_allclose(y, swish(swish(X), 2.0), rtol=1e-5)


def test_a_function_of_the_model_stays() -> None:
    model = with_body(20)
    own = CustomOp.of_body(
        '<domain: "my.domain", opset_import: ["" : 20]> Swish <beta: float = 1.0> (x) => (y) { y = Neg (x) }'
    )
    model.functions.add().CopyFrom(own.body)
    assert with_bodies(model, ops_with(SWISH)) is None


def test_what_only_numpy_computes_is_found() -> None:
    ops = ops_with(SWISH, RANKS)
    model = in_numpy()
    assert numpy_nodes(model, ops) == [2]
    with pytest.raises(
        UnsupportedError,
        match="a conversion to Core ML needs .* numpy function only, which runs on 'cpu': my.domain::Ranks 'order'",
    ):
        require_bodies(model, ops, "a conversion to Core ML")


def test_numpy_computes_nothing_in_a_branch() -> None:
    text = """g (float[1,3] x, bool yes) => (float[1,3] y) {
        y = If (yes) <then_branch = t () => (float[1,3] a) { a = my.domain.Ranks(x, x) },
                      else_branch = e () => (float[1,3] b) { b = Neg(x) }> }"""
    with pytest.raises(UnsupportedError, match="Ranks 'a' is in a branch, a loop or a function"):
        numpy_nodes(model_of(text, opset=20, imports=', "my.domain" : 1'), ops_with(RANKS))
