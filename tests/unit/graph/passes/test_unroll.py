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


@pytest.mark.parametrize("condition", ["", "true"])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_known_number_of_steps_is_written_out(steps: int, condition: str) -> None:
    model = collecting(steps, condition)
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    normal = normalize(model)
    assert foreign_ops(normal) == []
    assert "Loop" not in ops_of(normal)
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    for right, found in zip(expected, evaluate(normal, {"x": x}), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-6)


@pytest.mark.parametrize("model", [collecting(None, ""), collecting(4, "", ends=True), collecting(65, "")])
def test_a_loop_that_may_end_earlier_or_is_long_stays(model: ModelProto) -> None:
    assert "Loop" in ops_of(normalize(model))
