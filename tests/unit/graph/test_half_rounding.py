"""fp16 chains are rounded after each operation, as numpy rounds them."""

from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from triune.graph.half_rounding import keep_half_rounding

HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
X = np.random.default_rng(0).normal(size=2000).astype(np.float16)


def model_of(*nodes: NodeProto, elem_type: int = HALF, **constants: np.ndarray[Any, Any]) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", elem_type, [2000])],
        [helper.make_tensor_value_info("y", elem_type, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(model: ModelProto, x: np.ndarray[Any, Any] = X) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_a_chain_rounds_after_each_operation() -> None:
    third = np.array(1 / 3, np.float16)
    model = model_of(
        helper.make_node("Mul", ["x", "third"], ["a"]),
        helper.make_node("Mul", ["a", "third"], ["b"]),
        helper.make_node("Sub", ["b", "x"], ["y"]),
        third=third,
    )
    want = X * third * third - X
    without = run(model)
    keep_half_rounding(model)
    np.testing.assert_array_equal(run(model), want)
    # The reason for all this: if ONNX Runtime rounds by itself one day, this module can go.
    assert (without != want).any()


def test_names_that_the_model_has_are_not_given_again() -> None:
    third = np.array(1 / 3, np.float16)
    model = model_of(
        helper.make_node("Mul", ["x", "third"], ["x/fp32"]),
        helper.make_node("Mul", ["x/fp32", "third"], ["third/fp32"]),
        helper.make_node("Mul", ["third/fp32", "third"], ["third/fp32/1"]),
        helper.make_node("Sub", ["third/fp32/1", "x"], ["y"]),
        third=third,
    )
    keep_half_rounding(model)
    np.testing.assert_array_equal(run(model), X * third * third * third - X)


def test_what_was_fp16_stays_so_to_the_caller() -> None:
    model = model_of(helper.make_node("Exp", ["x"], ["y"]))
    keep_half_rounding(model)
    answer = run(model)
    assert answer.dtype == np.float16
    np.testing.assert_array_equal(answer, np.exp(X.astype(np.float32)).astype(np.float16))


def test_moves_and_fp32_are_left_alone() -> None:
    moves = model_of(
        helper.make_node("Reshape", ["x", "shape"], ["a"]),
        helper.make_node("Transpose", ["a"], ["y"]),
        shape=np.array([20, 100]),
    )
    singles = model_of(helper.make_node("Exp", ["x"], ["y"]), elem_type=SINGLE)
    for model in (moves, singles):
        before = model.SerializeToString()
        keep_half_rounding(model)
        assert model.SerializeToString() == before


def test_constants_become_fp32_where_they_are_read_so() -> None:
    one = np.ones((), np.float16)
    model = model_of(
        helper.make_node("Add", ["x", "one"], ["a"]),
        helper.make_node("Unsqueeze", ["both", "axis"], ["b"]),
        helper.make_node("Add", ["a", "both"], ["c"]),
        helper.make_node("Mul", ["c", "b"], ["y"]),
        one=one,
        both=one,
        axis=np.array([0]),
    )
    keep_half_rounding(model)
    types = {each.name: each.data_type for each in model.graph.initializer}
    assert "one" not in types
    assert types["both"] == HALF
    assert sorted(types.values()).count(SINGLE) == 2
    np.testing.assert_array_equal(run(model), (X + one) + one)


def test_what_the_nodes_of_one_operation_hand_on_is_not_rounded() -> None:
    large = np.array(60000, np.float16)
    model = model_of(
        helper.make_node("Mul", ["x", "large"], ["a"], name="scale/Mul/0"),
        helper.make_node("Reshape", ["a", "shape"], ["b"], name="scale/Reshape/1"),
        helper.make_node("Div", ["b", "large"], ["c"], name="scale/Div/2"),
        helper.make_node("Reshape", ["c", "flat"], ["y"], name="flatten/Reshape/0"),
        large=large,
        shape=np.array([20, 100]),
        flat=np.array([2000]),
    )
    with np.errstate(over="ignore"):
        assert not np.isfinite((X * large).max())
    keep_half_rounding(model)
    np.testing.assert_allclose(run(model), X, rtol=2e-3)
    # One rounding, of the operation's result.
    assert [node.op_type for node in model.graph.node] == ["Cast", "Mul", "Reshape", "Div", "Cast", "Reshape"]


def test_inside_branches_and_loops() -> None:
    third = np.array(1 / 3, np.float16)

    def branch(name: str, op: str) -> Any:
        nodes = [
            helper.make_node(op, ["x", "third"], [f"{name}_a"]),
            helper.make_node(op, [f"{name}_a", "third"], [f"{name}_b"]),
        ]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_b", HALF, None)])

    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Mul", ["carried", "third"], ["inner"]),
            helper.make_node("Add", ["inner", "chosen"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", HALF, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", HALF, None),
        ],
    )
    model = model_of(
        helper.make_node(
            "If", ["yes"], ["chosen"], then_branch=branch("then", "Mul"), else_branch=branch("else", "Add")
        ),
        helper.make_node("Loop", ["steps", "yes", "x"], ["looped"], body=body),
        helper.make_node("Sub", ["looped", "third"], ["y"]),
        third=third,
        yes=np.array(True),
        steps=np.array(3),
    )
    chosen = X * third * third
    want = X
    for _ in range(3):
        want = want * third + chosen
    keep_half_rounding(model)
    np.testing.assert_array_equal(run(model), want - third)
