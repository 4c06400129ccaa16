"""Loops that collect a sequence in a known number of steps are written out; others stay."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from support.graphs import ops_of
from triune.graph.check import evaluate
from triune.graph.normalize import foreign_ops, normalize

FLOAT = TensorProto.FLOAT


def collecting(steps: int | None, condition: str, *, ends: bool = False) -> ModelProto:
    """The rows of exp(x) of each step, their total, and twice each row, scanned; the condition may end the loop."""
    nodes = [
        helper.make_node("Gather", ["x", "step"], ["row"]),
        helper.make_node("Exp", ["row"], ["e"]),
        helper.make_node("Unsqueeze", ["e", "axis"], ["u"]),
        helper.make_node("SequenceInsert", ["given", "u"], ["longer"]),
        helper.make_node("Add", ["total", "e"], ["sum"]),
        helper.make_node("Mul", ["row", "two"], ["twice"]),
        helper.make_node("Less", ["step", "axis0"] if ends else ["axis0", "axis0"], ["less"]),
        helper.make_node("Identity", ["less" if ends else "on"], ["goes_on"]),
    ]
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        nodes,
        "body",
        [
            info("step", TensorProto.INT64, []),
            info("on", TensorProto.BOOL, []),
            helper.make_tensor_sequence_value_info("given", FLOAT, None),
            info("total", FLOAT, [3]),
        ],
        [
            info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_sequence_value_info("longer", FLOAT, None),
            info("sum", FLOAT, [3]),
            info("twice", FLOAT, [3]),
        ],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
    )
    outer = [
        helper.make_node("SequenceEmpty", [], ["empty"]),
        helper.make_node("Loop", ["n", condition, "empty", "zero"], ["s", "total_out", "scanned"], body=body),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
    ]
    inputs = [info("x", FLOAT, [4, 3]), *([info("n", TensorProto.INT64, [])] if steps is None else [])]
    outputs = [info("y", FLOAT, None), info("total_out", FLOAT, [3]), info("scanned", FLOAT, None)]
    constants: dict[str, Any] = {
        "axis": np.array([0]),
        "axis0": np.array(0),
        "zero": np.zeros(3, np.float32),
        "true": np.array(True),
        **({} if steps is None else {"n": np.array(steps)}),
    }
    tensors = [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()]
    graph = helper.make_graph(outer, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    "model",
    [collecting(1, ""), collecting(1, "true"), collecting(4, ""), collecting(4, "true"), collecting(4, "", ends=True)],
)
def test_a_known_number_of_steps_is_written_out(model: ModelProto) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    normal = normalize(model)
    assert foreign_ops(normal) == []
    assert "Loop" not in ops_of(normal)
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    for right, found in zip(expected, evaluate(normal, {"x": x}), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-6)


@pytest.mark.parametrize("model", [collecting(None, ""), collecting(65, "")])
def test_a_loop_of_an_unknown_number_of_steps_or_of_many_stays(model: ModelProto) -> None:
    assert "Loop" in ops_of(normalize(model))


def counting(trips: int | None, start: int, end: Any, step: int = 1) -> ModelProto:
    """exp of the rows of x at start, start + step, ... while the row's number is below `end`, as torch writes its
    EmbeddingBag: the types of the body's values are not declared.

    Args:
        trips: the largest number of steps; None leaves it out.
        start: the first row.
        end: the row at which the loop ends; None makes it an input of the model.
        step: by how much the row's number grows.
    """
    nodes = [
        helper.make_node("Gather", ["x", "at"], ["row"]),
        helper.make_node("Exp", ["row"], ["e"]),
        helper.make_node("Unsqueeze", ["e", "axis"], ["u"]),
        helper.make_node("SequenceInsert", ["given", "u"], ["longer"]),
        helper.make_node("CastLike", ["by", "at"], ["by_cast"]),
        helper.make_node("Add", ["at", "by_cast"], ["next"]),
        helper.make_node("Less", ["next", "end"], ["goes_on"]),
    ]
    info = helper.make_tensor_value_info
    untyped = helper.make_empty_tensor_value_info
    body = helper.make_graph(
        nodes,
        "body",
        [info("step", TensorProto.INT64, []), info("on", TensorProto.BOOL, []), untyped("at"), untyped("given")],
        [untyped("goes_on"), untyped("next"), untyped("longer")],
    )
    outer = [
        helper.make_node("SequenceEmpty", [], ["empty"]),
        helper.make_node("Loop", ["" if trips is None else "n", "true", "first", "empty"], ["last", "s"], body=body),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
    ]
    constants = {"axis": [0], "by": step, "first": start, "true": True, **({} if trips is None else {"n": trips})}
    inputs = [info("x", FLOAT, [80, 3])]
    if end is None:
        inputs.append(info("end", TensorProto.INT64, []))
    else:
        constants["end"] = end
    tensors = [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()]
    outputs = [info("y", FLOAT, None), info("last", TensorProto.INT64, [])]
    graph = helper.make_graph(outer, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("trips", "start", "end", "step", "num_rows"),
    [
        (None, 0, 3, 1, 3),
        (None, 2, 9, 3, 3),
        (2, 0, 5, 1, 2),
        (7, 0, 5, 1, 5),
        (None, 6, 5, 1, 1),
        (None, 0, 64, 1, 64),
    ],
)
def test_a_condition_that_counts_is_written_out(
    trips: int | None, start: int, end: int, step: int, num_rows: int
) -> None:
    model = counting(trips, start, end, step)
    x = np.random.default_rng(0).standard_normal((80, 3)).astype(np.float32)
    normal = normalize(model)
    assert foreign_ops(normal) == []
    assert "Loop" not in ops_of(normal)
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    found = evaluate(normal, {"x": x})
    assert found[0].shape == (num_rows, 3)
    for right, each in zip(expected, found, strict=True):
        np.testing.assert_allclose(each, right, rtol=1e-6)


@pytest.mark.parametrize(
    "model", [counting(None, 0, None), counting(None, 0, 65), counting(None, 0, 5, 0)], ids=["input", "65", "endless"]
)
def test_a_condition_that_does_not_end_the_loop_in_time_leaves_it(model: ModelProto) -> None:
    assert "Loop" in ops_of(normalize(model))


def test_a_loop_that_only_reads_a_sequence_is_written_out() -> None:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("SequenceAt", ["s", "step"], ["part"]),
            helper.make_node("Add", ["total", "part"], ["sum"]),
            helper.make_node("Identity", ["on"], ["goes_on"]),
        ],
        "body",
        [info("step", TensorProto.INT64, []), info("on", TensorProto.BOOL, []), info("total", FLOAT, [1, 3])],
        [info("goes_on", TensorProto.BOOL, []), info("sum", FLOAT, [1, 3])],
    )
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["s"], axis=0),
        helper.make_node("Loop", ["n", "", "zero"], ["y"], body=body),
    ]
    constants = {"n": np.array(4), "zero": np.zeros((1, 3), np.float32)}
    tensors = [numpy_helper.from_array(each, name) for name, each in constants.items()]
    graph = helper.make_graph(nodes, "g", [info("x", FLOAT, [4, 3])], [info("y", FLOAT, [1, 3])], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    normal = normalize(model)
    assert foreign_ops(normal) == []
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    np.testing.assert_allclose(evaluate(normal, {"x": x})[0], x.sum(0, keepdims=True), rtol=1e-6)
