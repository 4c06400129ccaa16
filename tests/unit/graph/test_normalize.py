"""Whole models to core ops, checked after every pass."""

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from support.graphs import model_of, ops_of
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.graph import normalize as room
from triune.graph.check import Check, compare, evaluate, sample_inputs
from triune.graph.normalize import foreign_ops, normalize, require_core_ops
from triune.graph.passes.infer import Infer
from triune.graph.passes.run import GraphPass, run_passes

EXPORTED = """
agraph (float[N,4] x) => (float[N,2,2] y) {
  s = Shape (x)  i = Constant <value_int = 0> ()  n = Gather (s, i)
  a = Constant <value_ints = [0]> ()  m = Unsqueeze (n, a)  r = Constant <value_ints = [2, 2]> ()
  t = Concat <axis = 0> (m, r)  h = HardSwish (x)  z = Mish (h)  y = Reshape (z, t)
}"""


def test_every_pass_is_checked_against_the_reference_evaluator() -> None:
    model = model_of(EXPORTED)
    inputs = sample_inputs(model)
    normal = normalize(model, check=inputs)
    assert foreign_ops(normal) == []
    np.testing.assert_allclose(evaluate(normal, inputs)[0], evaluate(model, inputs)[0], rtol=1e-5)


def test_a_pass_that_changes_the_answer_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        name = "wrong"

        def __call__(self, model: ModelProto) -> ModelProto:
            for node in model.graph.node:
                node.op_type = "Sub" if node.op_type == "Add" else node.op_type
            return model

    monkeypatch.setattr(room, "Branches", Wrong)
    model = model_of("agraph (float[2] x, float[2] z) => (float[2] y) { y = Add (x, z) }")
    with pytest.raises(InternalError, match="pass 'wrong' changed output 'y' by up to"):
        normalize(model, check=sample_inputs(model))


def test_the_given_model_is_not_changed() -> None:
    model = model_of(EXPORTED)
    before = model.SerializeToString(deterministic=True)
    normalize(model)
    assert model.SerializeToString(deterministic=True) == before


def test_large_weights_come_through() -> None:
    model = model_of("agraph (float[1,300] x, float[300,300] w) => (float[1,300] y) { y = MatMul (x, w) }")
    weight = np.random.default_rng(0).standard_normal((300, 300), np.float32)
    tensor = model.graph.initializer.add()
    tensor.CopyFrom(numpy_helper.from_array(weight, "w"))
    del model.graph.input[1]
    normal = normalize(model)
    assert [value.name for value in normal.graph.input] == ["x"]
    x = np.ones((1, 300), np.float32)
    np.testing.assert_allclose(evaluate(normal, {"x": x})[0], x @ weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("y = Relu (z)  z = Relu (y)", "topologically sorted"),
        ("y = Relu (nothing)", "input 'nothing' of node"),
        ("y = Relu (x)  y = Neg (x)", "'y' has been used as output names multiple times"),
        ("y = NoSuchOp (x)", "No Op registered for NoSuchOp"),
        ("y = Relu <alpha = 1> (x)", "Unrecognized attribute: alpha"),
    ],
)
def test_models_that_are_no_valid_onnx_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"the model is not valid ONNX: .*{reason}"):
        normalize(model_of(f"agraph (float[2] x) => (float[2] y) {{ {text} }}"))


BRANCHES = "<then_branch = g () => (float[2] a) { a = Neg (x) }, else_branch = h () => (float[2] b, float[2] d) {%s}>"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "{ c = Cast <to = 9> (n)  y = If (c) %s }" % (BRANCHES % " b = Abs (x)  d = Neg (b) "),
            "graph 'h' of If 'y' has 0 inputs and 2 outputs; the node needs 0 and 1",
        ),
        (
            "{ y = Loop (n, , x) <body = g (int64 i, bool t) => (bool o) { o = Identity (t) }> }",
            "graph 'g' of Loop 'y' has 2 inputs and 1 outputs; the node needs 3 and 2",
        ),
        (
            "{ y = Scan (x) <num_scan_inputs = 2, body = g (float a) => (float b) { b = Neg (a) }> }",
            "Scan 'y' has 1 inputs and is to scan 2 of them",
        ),
        ("{ y = Softmax <axis = 3> (x) }", "Softmax 'y' of operator set 11: it has no axis 3: its input is of rank 1"),
    ],
)
def test_nodes_that_do_not_fit_together_are_named(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        normalize(model_of(f"agraph (float[2] x, int64 n) => (float[2] y) {text}", opset=11))


@pytest.mark.parametrize(
    "text",
    [
        "agraph (float[4] x) => (float[2] y, float[2] z) { y, z = Split <num_outputs = 1> (x) }",
        """agraph (float[4] x) => (float[2] y, float[2] z) { y, z = own.halves (x) }
        <domain: "own", opset_import: ["" : 18]> halves (a) => (b, c) { b, c = Split <num_outputs = 1> (a) }""",
    ],
)
def test_a_split_has_as_many_outputs_as_it_says(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"Split '[yb]' has 2 outputs, and its attribute num_outputs is 1"):
        normalize(model_of(text, opset=18, imports=', "own" : 1'))


def test_sizes_have_an_end() -> None:
    with pytest.raises(InvalidArgumentError, match="'x' is declared with a size of 9223372036854775807; the largest"):
        normalize(model_of(f"agraph (float[1,{2**63 - 1}] x) => (float[?,?] y) {{ y = Relu (x) }}"))


def test_an_input_that_is_an_output_too_keeps_its_shape() -> None:
    text = "agraph (float[2,1,4,5] x) => (float[2,1,1,1] y, float[2,1,4,5] x) { y = GlobalMaxPool (x) }"
    assert ops_of(normalize(model_of(text))) == ["ReduceMax", "Identity"]


def test_inputs_need_no_shape() -> None:
    model = model_of("agraph (float[2] x) => (float[2] y) { y = Relu (x) }", opset=17)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert ops_of(normalize(model)) == ["Relu"]


def test_what_is_left_is_named_with_its_node() -> None:
    model = model_of("agraph (int32[4] x) => (float[4] y) { [odd] y = BitCast <to=1> (x) }")
    normal = normalize(model)
    assert foreign_ops(normal) == ["BitCast 'odd'"]
    with pytest.raises(UnsupportedError, match=r"1 nodes cannot be brought to core ops: BitCast 'odd'"):
        require_core_ops(normal)


def test_operators_in_branches_are_brought_to_core_ops_too() -> None:
    text = """
    agraph (bool c, float[2] x) => (float[2] y) {
      y = If (c) <then_branch = g1 () => (float[2] a) { a = Mish (x) },
              else_branch = g2 () => (float[2] b) { b = Abs (x) }>
    }"""
    normal = normalize(model_of(text))
    assert ops_of(normal) == ["If"]
    assert foreign_ops(normal) == []


def test_sample_inputs_are_refused_for_text() -> None:
    with pytest.raises(UnsupportedError, match="input 'x' is not a tensor of numbers"):
        sample_inputs(model_of("agraph (string[2] x) => (string[2] y) { y = Identity (x) }"))


def test_compare_names_the_shape_that_changed() -> None:
    model = model_of("agraph (float[1,2] x) => (float[2] y) { a = Constant <value_ints = [0]> ()  y = Squeeze (x, a) }")
    with pytest.raises(InternalError, match=r"pass 'p' changed output 'y' from shape \(1, 2\) to \(2,\)"):
        compare("p", [np.zeros((1, 2))], model, {"x": np.zeros((1, 2), np.float32)})


class _Doubling(GraphPass):
    """Given anything. Result: its first output doubled, which is wrong."""

    name = "doubling"

    def __call__(self, model: ModelProto) -> ModelProto:
        (node,) = (each for each in model.graph.node if model.graph.output[0].name in each.output)
        name, node.output[0] = node.output[0], "half"
        model.graph.node.append(helper.make_node("Add", ["half", "half"], [name]))
        return model


def test_a_check_names_the_pass_that_changes_an_answer() -> None:
    model = model_of("agraph (float[2] x) => (float[2] y) { y = Neg (x) }")
    check = Check(model, {"x": np.array([1, 2], np.float32)})
    run_passes(model, [Infer()], check)
    with pytest.raises(InternalError, match="pass 'doubling' changed output 'y' by up to 2"):
        run_passes(model, [Infer(), _Doubling()], check)
