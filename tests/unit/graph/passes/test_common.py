"""Equal nodes are computed once, equal constants are stored once."""

import numpy as np
from onnx import numpy_helper

from support.graphs import model_of
from support.one_pass import ops_after, passed
from triune.graph.passes.common import Common
from triune.graph.passes.tidy import Tidy


def test_equal_nodes_are_computed_once() -> None:
    text = "g (float[2] x) => (float[2] y) { a = Exp(x) b = Exp(x) c = Neg(a) d = Neg(b) y = Add(c, d) }"
    assert ops_after(Common(), text) == ["Exp", "Neg", "Add"]


def test_another_attribute_or_operand_is_another_node() -> None:
    text = """g (float[2,2] x) => (float[2,2] y)
      { a = Softmax<axis=0>(x) b = Softmax<axis=1>(x) c = Neg(x) d = Neg(a) y = Sum(a, b, c, d) }"""
    assert ops_after(Common(), text) == ["Softmax", "Softmax", "Neg", "Neg", "Sum"]


def test_one_of_two_may_be_an_output() -> None:
    for order in ("y = Exp(x) b = Exp(x)", "b = Exp(x) y = Exp(x)"):
        after = passed(Common(), f"g (float[2] x) => (float[2] y, float[2] z) {{ {order} z = Neg(b) }}")
        assert [list(node.output) for node in after.graph.node] == [["y"], ["z"]]


def test_both_are_outputs() -> None:
    text = "g (float[2] x) => (float[2] y, float[2] z) { y = Exp(x) z = Exp(x) }"
    assert ops_after(Common(), text) == ["Exp", "Exp"]


def test_random_numbers_stay_apart() -> None:
    model = model_of("g (float[2] x) => (float[2] y) { a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b) }")
    assert len(Common()(model).graph.node) == 3


def test_nodes_with_several_outputs() -> None:
    text = """g (float[4] x) => (float[2] y)
      { a, b = Split<num_outputs=2>(x) c, d = Split<num_outputs=2>(x) e = Add(a, d) y = Sub(e, c) }"""
    assert ops_after(Common(), text) == ["Split", "Add", "Sub"]


def test_what_a_subgraph_reads_keeps_its_name() -> None:
    text = """g (float[2] x, bool c) => (float[2] y) { a = Exp(x) b = Exp(x)
      y = If (c) <then_branch = t () => (float[2] r) { r = Add(a, b) },
      else_branch = e () => (float[2] s) { s = Neg(b) }> }"""
    inputs = {"x": np.ones(2, np.float32), "c": np.array(True)}
    assert ops_after(Common(), text, inputs=inputs) == ["Exp", "Exp", "If"]


def test_equal_constants_are_stored_once() -> None:
    text = """g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {1, 2}, float[2] c = {1, 3}>
      { d = Add(x, a) e = Mul(d, b) y = Sub(e, c) }"""
    after = passed(Common(), text)
    assert [tensor.name for tensor in after.graph.initializer] == ["a", "c"]


def test_defaults_of_inputs_are_no_constants() -> None:
    model = model_of(
        """g (float[2] x, float[2] a, float[2] b) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {1, 2}>
          { d = Add(x, a) y = Mul(d, b) }"""
    )
    after = Common()(Tidy()(model))
    assert [tensor.name for tensor in after.graph.initializer] == ["a", "b"]
    assert list(after.graph.node[1].input) == ["d", "b"]


def test_zero_and_negative_zero_differ() -> None:
    model = model_of("g (float[1] x) => (float[1] y) { d = Div(x, a) e = Div(x, b) y = Sub(d, e) }")
    for name, value in (("a", 0.0), ("b", -0.0)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.float32), name))
    assert len(Common()(model).graph.initializer) == 2
