"""Graphs that are cut at operators that numpy computes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from support.graphs import model_of
from triune.core.errors import InternalError, InvalidArgumentError
from triune.graph.custom import CustomOp, custom_op, read_custom_ops
from triune.graph.custom.compare import BodyDiffersError, compare_bodies
from triune.graph.custom.resolve import numpy_nodes
from triune.graph.custom.stages import NumpyFunctionError, RunPiece, Stages
from triune.graph.session import GraphSession
from triune.graph.split import Piece

X = np.array([[3, -1, 2]], np.float32)


def compile_piece(piece: Piece) -> RunPiece:
    session = GraphSession(piece.model, "piece")

    def run(inputs: Mapping[str, Any], /) -> Mapping[str, Any]:
        return session.run(inputs, {})[0]

    return run


def computed(text: str, *ops: CustomOp, outputs: tuple[str, ...] = ("y",), **inputs: Any) -> list[Any]:
    model = model_of(text, opset=20, imports=', "my" : 1')
    collected = read_custom_ops(list(ops))
    stages = Stages(model, collected, numpy_nodes(model, collected), compile_piece)
    found = stages.run(inputs, list(outputs))
    return [found[name] for name in outputs]


@custom_op("my::Half")
def half(x: Any) -> Any:
    return x / 2


@custom_op("my::Scaled", outputs=["x", np.int64])
def scaled(x: Any, bias: Any = None, *, by: float = 1.0, text: str = "", table: Any = None) -> Any:
    total = x * np.float32(by) + (0 if bias is None else bias) + (0 if table is None else table)
    return total, np.array(len(text), np.int64)


def test_operators_first_last_and_next_to_each_other() -> None:
    text = "g (float[1,3] x) => (float[1,3] y) { a = my.Half(x) b = my.Half(a) c = Neg(b) y = my.Half(c) }"
    np.testing.assert_array_equal(computed(text, half, x=X)[0], X / -8)


def test_an_operator_alone() -> None:
    text = "g (float[1,3] x) => (float[1,3] y) { y = my.Half(x) }"
    np.testing.assert_array_equal(computed(text, half, x=X)[0], X / 2)


def test_constants_are_inputs() -> None:
    """Weights, results of constants, and an operator of constants alone."""
    text = """g (float[1,3] x) => (float[1,3] y) <float[3] w = {1, 2, 3}> {
        k = Constant<value_float = 4.0>() v = Neg(w) a, m = my.Scaled(x, v) b, n = my.Scaled(w, k)
        c = my.Half(w) d = Add(a, b) y = Add(d, c) }"""
    w = np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(computed(text, half, scaled, x=X)[0], (X - w) + (w + 4) + w / 2)


def test_attributes_and_inputs_that_are_left_out() -> None:
    text = """g (float[1,3] x) => (float[1,3] y, int64 n) {
        y, n = my.Scaled<by = 2.5, text = "abc", table = float[3] {1, 1, 2}>(x) }"""
    y, n = computed(text, scaled, outputs=("y", "n"), x=X)
    np.testing.assert_array_equal(y, X * 2.5 + [1, 1, 2])
    assert n == 3


def test_results_are_the_callers() -> None:
    same = custom_op("my::Same")(lambda x: x)
    x = X.copy()
    (y,) = computed("g (float[1,3] x) => (float[1,3] y) { y = my.Same(x) }", same, x=x)
    y[:] = 7
    np.testing.assert_array_equal(x, X)


def test_types_after_an_operator_are_inferred() -> None:
    """The cut between two operators passes an int64, whose type is known by the operator's alone."""
    ranks = custom_op("my::Ranks", outputs=[np.int64])(np.argsort)
    text = "g (float[N,3] x) => (int64[N,3] y) { a = my.Ranks(x) b = Add(a, a) y = my.Half(b) }"
    wide = custom_op("my::Half")(lambda x: x // 2)
    np.testing.assert_array_equal(computed(text, ranks, wide, x=X)[0], [[1, 2, 0]])


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("y = my.Half(x, x)", "Half 'y' has 2 inputs; the numpy function of custom operator 'my::Half' takes x"),
        ("y = my.Half()", "Half 'y' has 0 inputs"),
        (
            "y = my.Half<by = 2.0>(x)",
            "has the attribute 'by'; the numpy function of custom operator 'my::Half' takes none",
        ),
        ("y, z = my.Half(x)", None),
        ("y, z, u = my.Scaled(x)", "has 3 outputs, and custom operator 'my::Scaled' states the types of 2"),
        ("y = my.Needy(x)", "lacks the attribute 'by', for which the numpy function"),
        ("y = my.Empty()", "the types of 0"),
    ],
)
def test_nodes_that_do_not_fit_are_refused(node: str, message: str | None) -> None:
    def needs(x: Any, *, by: float) -> Any:
        return x * by

    needy, empty = custom_op("my::Needy")(needs), custom_op("my::Empty")(lambda: X)
    text = f"g (float[1,3] x) => (float[1,3] y) {{ {node} }}"
    if message is None:
        with pytest.raises(InternalError, match="gave 1 results; Half 'y' has 2 outputs"):
            computed(text, half, x=X)
        return
    with pytest.raises(InvalidArgumentError) as refused:
        computed(text, half, scaled, needy, empty, x=X)
    assert message in f"{refused.value}"


def test_what_a_function_raises_names_the_operator() -> None:
    def fails(x: Any) -> Any:
        raise ValueError("no such thing")

    text = "g (float[1,3] x) => (float[1,3] y) { y = my.Fails(x) }"
    with pytest.raises(NumpyFunctionError, match="'my::Fails' at Fails 'y' failed: ValueError: no such thing"):
        computed(text, custom_op("my::Fails")(fails), x=X)


def test_another_type_than_stated_is_an_error() -> None:
    text = "g (float[1,3] x) => (float[1,3] y) { y = my.Wide(x) }"
    with pytest.raises(InternalError, match="gave float64 for output 'y' of Wide 'y'; it is stated to be float32"):
        computed(text, custom_op("my::Wide")(lambda x: x.astype(np.float64)), x=X)


def swish(exponent: float) -> CustomOp:
    body = '<domain: "my", opset_import: ["" : 20]> Swish (x) => (y) { g = Sigmoid (x) y = Mul (x, g) }'
    return custom_op("my::Swish", body=body)(lambda x: x / (1 + np.exp(exponent * x)))


def test_bodies_are_compared_with_numpy_on_the_models_values() -> None:
    model = model_of(
        "g (float[1,3] x) => (float[1,3] y) { a = Neg(x) b = my.Half(a) y = my.Swish(b) }",
        opset=20,
        imports=', "my" : 1',
    )
    (line,) = compare_bodies(model, read_custom_ops([half, swish(-1)]), {"x": X})
    assert line.startswith("custom operator 'my::Swish' at Swish 'y': body and numpy function differ by ")
    with pytest.raises(
        BodyDiffersError, match="output 'y' of Swish 'y': .* on inputs float32\\[1, 3\\], differs by 0.777"
    ):
        compare_bodies(model, read_custom_ops([half, swish(1)]), {"x": X})


def test_a_body_of_another_shape_differs() -> None:
    body = '<domain: "my", opset_import: ["" : 20]> Sum (x) => (y) { y = ReduceSum <keepdims = 0> (x) }'
    total = custom_op("my::Sum", body=body)(lambda x: x.sum(keepdims=True))
    model = model_of("g (float[1,3] x) => (float y) { y = my.Sum(x) }", opset=20, imports=', "my" : 1')
    with pytest.raises(BodyDiffersError, match=r"has the shape \[\] by its body and \[1, 1\] by its numpy function"):
        compare_bodies(model, read_custom_ops(total), {"x": X})


def test_a_body_that_cannot_compute_differs() -> None:
    body = '<domain: "my", opset_import: ["" : 20]> Sum (x) => (y) { y = MatMul (x, x) }'
    total = custom_op("my::Sum", body=body)(lambda x: x)
    model = model_of("g (float[1,3] x) => (float[1,3] y) { y = my.Sum(x) }", opset=20, imports=', "my" : 1')
    with pytest.raises(BodyDiffersError, match="the body of custom operator 'my::Sum' cannot compute Sum 'y'"):
        compare_bodies(model, read_custom_ops(total), {"x": X})
