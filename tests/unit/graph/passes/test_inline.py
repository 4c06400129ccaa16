"""Functions replaced by their bodies: the model's own, and the standard's."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
from onnx import GraphProto, ModelProto

from support.graphs import answers, model_of, ops_of
from triune.core.errors import InvalidArgumentError
from triune.graph.check import evaluate, sample_inputs
from triune.graph.normalize import foreign_ops, normalize
from triune.graph.passes.inline import Inline
from triune.graph.values import subgraphs_of


def require_unique(graph: GraphProto, outer: Collection[str] = ()) -> None:
    """No name is defined twice in what a node sees."""
    names = [value.name for value in (*graph.input, *graph.initializer)]
    names += [name for node in graph.node for name in node.output if name]
    assert len({*names, *outer}) == len(names) + len(outer)
    for node in graph.node:
        for inner in subgraphs_of(node):
            require_unique(inner, {*names, *outer})


def agrees(model: ModelProto, inputs: dict[str, Any] | None = None) -> None:
    """The normalized model computes what the given one does."""
    inputs = inputs or sample_inputs(model)
    normal = normalize(model)
    assert foreign_ops(normal) == []
    require_unique(normal.graph)
    for actual, right in zip(answers(normal, inputs), answers(model, inputs), strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "(float[2,3] x) => (float[2,3] y, float[2,3] z) { y = LogSoftmax <axis=0> (x)  z = LogSoftmax <axis=1> (x) }",
        "(float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Celu <alpha = 0.5> (x)  z = Celu (x) }",
        "(float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Shrink <lambd = 0.1> (x)  z = Shrink <bias = 0.5> (x) }",
        "(float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Selu <alpha = 2.0> (x)  z = Selu (x) }",
        "(float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Swish <alpha = 2.0> (x)  z = Swish (x) }",
        """(float[2,3] x) => (float[2,3] y, float[2,3] z) {
           y = ThresholdedRelu <alpha = 0.1> (x)  z = ThresholdedRelu <alpha = 0.5> (x) }""",
        """(float[2,3,4] x) => (float[2,3,4] y, float[2,3,4] z) {
           y = MeanVarianceNormalization <axes = [0]> (x)  z = MeanVarianceNormalization <axes = [1, 2]> (x) }""",
        """(float[1,4,3] x, float[4] s, float[4] b) => (float[1,4,3] y, float[1,4,3] z) {
           y = GroupNormalization <num_groups = 2> (x, s, b)
           z = GroupNormalization <num_groups = 4, epsilon = 0.1> (x, s, b) }""",
        """(float[2,3] x, float[3] w) => (float[2,3] y, float[2,3] z) {
           y = RMSNormalization (x, w)  z = RMSNormalization <epsilon = 0.5> (y, w) }""",
        """(float[5,4] x) => (float[3,2] y, float[4,6] z) <int64[2] s = {3, 2}, int64[2] t = {4, 6}> {
           y = CenterCropPad (x, s)  z = CenterCropPad (x, t) }""",
        """(float[1,2,3,4] q, float[1,2,5,4] k) => (float[1,2,3,4] y, float[1,2,3,4] z) {
           y = Attention (q, k, k)  z = Attention <is_causal = 1, scale = 0.3> (q, k, k) }""",
    ],
)
def test_two_calls_of_a_function_keep_their_own_constants(text: str) -> None:
    agrees(model_of(f"agraph {text}"))


def test_calls_in_both_branches_and_in_a_loop_keep_their_own_constants() -> None:
    agrees(
        model_of(
            """
            agraph (float[2,3] x) => (float[2,3] y, float[2,3] z) <int64 n = {3}> {
              s = ReduceSum <keepdims = 0> (x)  k = Constant <value = float {0.0}> ()  c = Greater (s, k)
              y = If (c) <then_branch = g () => (float[2,3] a) { a = LogSoftmax <axis = 0> (x) },
                          else_branch = h () => (float[2,3] b) { b = LogSoftmax <axis = 1> (x) }>
              z = Loop (n, "", x) <body = l (int64 i, bool t, float[2,3] v) => (bool o, float[2,3] w) {
                o = Identity (t)  u = LogSoftmax <axis = 0> (v)  w = LogSoftmax <axis = 1> (u) }>
            }"""
        ),
        {"x": np.array([[1, 2, 3], [0.5, -1, 4]], np.float32)},
    )


def test_names_of_the_model_are_not_taken() -> None:
    # Every name that the body of the call could be given is there before.
    agrees(
        model_of(
            """
            agraph (float[2,3] x) => (float[2,3] y, float[2,3] z) {
              "y/LogSoftmax/axes" = Neg (x)  "y/LogSoftmax/X_ReduceMax" = Abs (x)
              y = LogSoftmax <axis = 0> (x)  z = Add ("y/LogSoftmax/axes", "y/LogSoftmax/X_ReduceMax") }"""
        )
    )


FUNCTIONS = {
    "a function that calls another, twice": """
    agraph (float[2,3] x) => (float[2,3] y) { y = own.outer (x) }
    <domain: "own", opset_import: ["" : 17, "own" : 1]> outer (a) => (b) { t = own.twice (a)  b = own.twice (t) }
    <domain: "own", opset_import: ["" : 17]> twice (a) => (b) { c = Constant <value = float {2.0}> ()  b = Mul (a, c) }
    """,
    "attributes with and without defaults": """
    agraph (float[2,3] x) => (float[2,3] y, float[2,3] z, float[2,3] w) {
      y = own.leak <slope = 0.5> (x)  z = own.leak (x)  w = own.soft <way = 0> (x) }
    <domain: "own", opset_import: ["" : 17]> leak <slope: float = 0.25> (a) => (b) {
      b = LeakyRelu <alpha: float = @slope> (a) }
    <domain: "own", opset_import: ["" : 17]> soft <way> (a) => (b) { b = Softmax <axis: int = @way> (a) }
    """,
    "an attribute that is left out": """
    agraph (float[2,3] x) => (float[2,3] y) { y = own.leak (x) }
    <domain: "own", opset_import: ["" : 17]> leak <slope> (a) => (b) { b = LeakyRelu <alpha: float = @slope> (a) }
    """,
    "an input and an output that are left out": """
    agraph (float[2,3] x) => (float[2,3] y) { y, _ = own.clip (x, "", x) }
    <domain: "own", opset_import: ["" : 17]> clip (a, low, high) => (b, c) {
      t = ReduceMax <keepdims = 0> (high)  b = Clip (a, low, t)  c = Neg (a) }
    """,
    "attributes handed on, in lists, and within a branch": """
    agraph (float[2,3] x) => (float[3,2] y) { y = own.outer <way = 0, order = [1, 0]> (x) }
    <domain: "own", opset_import: ["" : 17, "own" : 1]> outer <way, order> (a) => (b) {
      s = ReduceSum <keepdims = 0> (a)  k = Constant <value = float {0.0}> ()  c = Greater (s, k)
      t = If (c) <then_branch = g () => (float[2,3] p) { p = own.soft <axis: int = @way> (a) },
                  else_branch = h () => (float[2,3] q) { q = Softmax <axis: int = @way> (a) }>
      b = Transpose <perm: ints = @order> (t) }
    <domain: "own", opset_import: ["" : 17]> soft <axis> (a) => (b) { b = Softmax <axis: int = @axis> (a) }
    """,
    "an input that is given out": """
    agraph (float[2,3] x) => (float[2,3] y, float[2,3] z) { y, z = own.same (x) }
    <domain: "own", opset_import: ["" : 17]> same (a) => (a, b) { b = Neg (a) }
    """,
    "two domains": """
    agraph (float[2,3] x) => (float[2,3] y) { t = own.f (x)  y = other.f (t) }
    <domain: "own", opset_import: ["" : 17]> f (a) => (b) { b = Neg (a) }
    <domain: "other", opset_import: ["" : 17, "own" : 1]> f (a) => (b) { t = own.f (a)  b = Exp (t) }
    """,
    "names within a branch of the function": """
    agraph (float[2,3] x) => (float[2,3] y) { t = own.pick (x)  y = own.pick (t) }
    <domain: "own", opset_import: ["" : 17]> pick (a) => (b) {
      s = ReduceSum <keepdims = 0> (a)  k = Constant <value = float {0.0}> ()  c = Greater (s, k)
      b = If (c) <then_branch = g () => (float[2,3] p) { h = Neg (a)  p = Softmax <axis = 0> (h) },
                  else_branch = h () => (float[2,3] p) { h = Abs (a)  p = Softmax <axis = 1> (h) }> }
    """,
    "a call within a branch": """
    agraph (float[2,3] x) => (float[2,3] y) {
      s = ReduceSum <keepdims = 0> (x)  k = Constant <value = float {0.0}> ()  c = Greater (s, k)
      y = If (c) <then_branch = g () => (float[2,3] p) { p = own.f (x) },
                  else_branch = h () => (float[2,3] q) { q = Neg (x) }> }
    <domain: "own", opset_import: ["" : 17]> f (a) => (b) { b = Softmax <axis = 0> (a) }
    """,
}


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_the_model_are_opened(name: str, opset: int) -> None:
    text = FUNCTIONS[name].replace('"" : 17', f'"" : {opset}')
    agrees(model_of(text, opset=opset, imports=', "own" : 1, "other" : 1'))


@pytest.mark.parametrize("opset", [12, 17, 28])
def test_a_function_of_an_older_set_than_the_models_means_what_its_own_set_says(opset: int) -> None:
    # Softmax before set 13: over all axes from the first on.
    model = model_of(
        """
        agraph (float[2,3,4] x) => (float[2,3,4] y) { y = own.soft (x) }
        <domain: "own", opset_import: ["" : 11]> soft (a) => (b) {
          t = Hardmax <axis = 1> (a)  s = ReduceSum <axes = [0], keepdims = 1> (t)  b = Add (a, s) }
        """,
        opset=opset,
        imports=', "own" : 1',
    )
    x = sample_inputs(model)["x"]
    flat = x.reshape(2, 12)
    hard = (flat == flat.max(1, keepdims=True)).astype(np.float32).reshape(2, 3, 4)
    np.testing.assert_allclose(evaluate(normalize(model), {"x": x})[0], x + hard.sum(0, keepdims=True), rtol=1e-6)


def test_overloads_are_told_apart() -> None:
    model = model_of(
        """
        agraph (float[2] x) => (float[2] y, float[2] z) { y = own.f (x)  z = own.f (x) }
        <domain: "own", opset_import: ["" : 21]> f (a) => (b) { b = Neg (a) }
        <domain: "own", opset_import: ["" : 21]> g (a) => (b) { b = Exp (a) }""",
        opset=21,
        imports=', "own" : 1',
    )
    model.functions[0].overload, model.functions[1].overload = "one", "two"
    model.functions[1].name = "f"
    model.graph.node[0].overload, model.graph.node[1].overload = "one", "two"
    y, z = evaluate(normalize(model), {"x": np.array([1, 2], np.float32)})
    np.testing.assert_allclose(y, [-1, -2])
    np.testing.assert_allclose(z, np.exp([1, 2]), rtol=1e-6)


def test_inline_keeps_what_is_to_be_kept() -> None:
    text = "agraph (float[2,3] x) => (float[2,3] y) { y = LogSoftmax <axis = 1> (x) }"
    assert ops_of(Inline(keep=["LogSoftmax"])(model_of(text))) == ["LogSoftmax"]


def test_a_body_that_needs_a_rank_waits_for_it() -> None:
    model = model_of("agraph (float[2] x, float[3,2] c) => (float[2] y) { y = RotaryEmbedding (x, c, c) }")
    with pytest.raises(InvalidArgumentError, match="attributes of RotaryEmbedding 'y' are not what ONNX specifies"):
        Inline()(model)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert ops_of(Inline()(model)) == ["RotaryEmbedding"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            """agraph (float[2] x) => (float[2] y) { y = own.f (x) }
            <domain: "own", opset_import: ["" : 21, "own" : 1]> f (a) => (b) { b = own.f (a) }""",
            "own::f -> own::f",
        ),
        (
            """agraph (float[2] x) => (float[2] y) { [call] y = own.f (x, x) }
            <domain: "own", opset_import: ["" : 21]> f (a) => (b) { b = Neg (a) }""",
            "f 'call' has 2 inputs and 1 outputs, its function 1 and 1",
        ),
        (
            """agraph (float[2] x) => (float[2] y) { [call] y = own.f (x) }
            <domain: "own", opset_import: ["" : 5]> f (a) => (b) { [cast] b = Cast <to = "REAL"> (a) }""",
            "in the function that f 'call' calls: Cast 'cast' of operator set 5: .*'REAL'",
        ),
    ],
)
def test_calls_that_cannot_be_opened_are_named(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        Inline()(model_of(text, imports=', "own" : 1'))
