"""Models as ONNX Runtime is given them: the same answers, and none that ends the process."""

import numpy as np
import onnx
import onnx.checker
import pytest
from onnx import ModelProto, TensorProto, helper

from support.graphs import answers, model_of, ops_of
from triune.graph.guard import guard
from triune.graph.session import GraphSession

LEAST = np.iinfo(np.int64).min


@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_quotients_wrap(kind: str) -> None:
    model = model_of(f"g ({kind}[n] x, {kind}[n] d) => ({kind}[n] y) {{ y = Div(x, d) }}", opset=17)
    assert guard(model).is_changed
    onnx.checker.check_model(model, full_check=True)
    least = np.iinfo(kind).min
    x, d = np.array([least, least, least, 7, -7, 7, -7], kind), np.array([-1, 1, least, -2, 2, -1, -1], kind)
    (y,) = answers(model, {"x": x, "d": d})
    assert y.dtype == kind
    assert y.tolist() == [least, least, 1, -3, -3, -7, 7]


@pytest.mark.parametrize(
    ("text", "inputs", "expected"),
    [
        ("g (int64[n] x) => (int64[n] y) <int64 d = {-1}> { y = Div(x, d) }", {"x": [LEAST, 3]}, [LEAST, -3]),
        (f"g (int64[n] d) => (int64[n] y) <int64 x = {{{LEAST}}}> {{ y = Div(x, d) }}", {"d": [-1, 1]}, [LEAST, LEAST]),
        (
            "g (float[n] f, float[n] e) => (int64[n] y) { x = Cast<to = 7>(f) d = Cast<to = 7>(e) y = Div(x, d) }",
            {"f": np.array([-(2.0**63), 8], np.float32), "e": np.array([-1, 3], np.float32)},
            [LEAST, 2],
        ),
        (
            """g (int64[n] x, int64[n] d, bool c) => (int64[n] y) {
            y = If(c) <then_branch = t () => (int64[n] a) { a = Div(x, d) },
                       else_branch = e () => (int64[n] b) { b = Identity(x) }> }""",
            {"x": [LEAST, 3], "d": [-1, 2], "c": True},
            [LEAST, 1],
        ),
    ],
    ids=["constant divisor", "constant dividend", "inferred type", "within an If"],
)
def test_quotients_wrap_wherever_they_are(text: str, inputs: dict[str, object], expected: list[int]) -> None:
    model = model_of(text, opset=17)
    assert guard(model).is_changed
    given = {name: np.asarray(each) for name, each in inputs.items()}
    assert answers(model, given)[0].tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        "g (float[n] x, float[n] d) => (float[n] y) { y = Div(x, d) }",
        "g (uint8[n] x, uint8[n] d) => (uint8[n] y) { y = Div(x, d) }",
        "g (int64[n] x) => (int64[n] y) <int64[2] d = {3, -2}> { y = Div(x, d) }",
        "g (int64[n] d) => (int64[n] y) <int64 x = {64}> { y = Div(x, d) }",
        "g (float[n] f, float[n] e) => (float[n] y) { x = Exp(f) d = Sqrt(e) y = Div(x, d) }",
    ],
    ids=["float", "uint8", "constant divisor", "constant dividend", "inferred type"],
)
def test_what_cannot_overflow_stays_as_it_is(text: str) -> None:
    model = model_of(text, opset=17)
    before = model.SerializeToString()
    found = guard(model)
    assert not found.is_changed
    assert not found.crash_risk
    assert model.SerializeToString() == before


def test_a_quotient_of_a_function_is_told() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Quotient", ["x", "d"], ["y"], domain="own")],
            "g",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["n"]) for name in ("x", "d")],
            [helper.make_tensor_value_info("y", TensorProto.INT64, ["n"])],
        ),
        functions=[
            helper.make_function(
                "own",
                "Quotient",
                ["a", "b"],
                ["q"],
                [helper.make_node("Div", ["a", "b"], ["q"])],
                [helper.make_opsetid("", 17)],
            )
        ],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
    )
    assert guard(model).crash_risk == "Div 'q': SIGFPE if the lowest integer is divided by -1"


def layer_normalization() -> ModelProto:
    """Its optional bias is given, and left out."""
    model = model_of(
        "g (float[b,4] x) => (float[b,4] y) <float[4] s = {1, 1, 1, 1}> { y = LayerNormalization<axis = -1>(x, s) }",
        opset=17,
    )
    model.graph.node[0].input.append("")
    onnx.checker.check_model(model, full_check=True)
    return model


def test_inputs_left_out_at_the_end_are_dropped() -> None:
    model = layer_normalization()
    assert guard(model).is_changed
    assert list(model.graph.node[0].input) == ["x", "s"]
    (y,) = answers(model, {"x": np.array([[1, 2, 3, 4]], np.float32)})
    np.testing.assert_allclose(y, [[-1.3416, -0.4472, 0.4472, 1.3416]], atol=1e-3)


def test_inputs_left_out_within_stay() -> None:
    model = model_of("g (float[n] x, float h) => (float[n] y) { y = Clip(x, , h) }", opset=17)
    found = guard(model)
    assert (found.is_changed, found.crash_risk) == (False, "")
    assert ops_of(model) == ["Clip"]


@pytest.mark.parametrize(
    "node", ["y = Max(x, , x)", "y = Sum(, x)", 'y = Einsum<equation = "a,a,a->a">(x, , x)', "y = Gemm(, x, x)"]
)
def test_inputs_that_are_not_optional_and_left_out_are_told(node: str) -> None:
    found = guard(model_of(f"g (float[a,a] x) => (float[a,a] y) {{ {node} }}", opset=17))
    assert "is left out, which is not optional" in found.crash_risk


def test_sessions_of_programs_are_guarded() -> None:
    session = GraphSession(
        model_of("g (int32[n] x, int32[n] d) => (int32[n] y) { y = Div(x, d) }", opset=17), "quotient"
    )
    least = np.iinfo(np.int32).min
    outputs, _ = session.run({"x": np.array([least], np.int32), "d": np.array([-1], np.int32)}, {})
    assert outputs["y"].tolist() == [least]
