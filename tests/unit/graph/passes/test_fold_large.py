"""Arithmetic on constants of any size is folded here, and weights that are only moved are not read."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from triune.graph.load import load
from triune.graph.normalize import normalize

FLOAT = TensorProto.FLOAT
LARGE = np.random.default_rng(0).integers(-50, 50, (400, 350)).astype(np.float32)


def model_of(nodes: list[onnx.NodeProto], rows: int, columns: int, **constants: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [*nodes, helper.make_node("Add", ["r", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1])],
        [helper.make_tensor_value_info("y", FLOAT, [rows, columns])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def folded(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return normalize(load(path))


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("op", ["Erf", "Gelu", "Exp", "Softmax"])
def test_arithmetic_on_large_constants_is_folded(op: str, tmp_path: Path) -> None:
    model = folded(model_of([helper.make_node(op, ["a"], ["r"])], 400, 350, a=LARGE / 10), tmp_path)
    assert kinds(model) == ["Add"]
    (tensor,) = model.graph.initializer
    assert numpy_helper.to_array(tensor).shape == (400, 350)


def test_equal_elements_of_large_constants_keep_onnx_s_order(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("TopK", ["a", "k"], ["v", "i"], axis=0, largest=1),
        helper.make_node("Cast", ["i"], ["r"], to=FLOAT),
    ]
    model = folded(model_of(nodes, 7, 350, a=LARGE, k=np.array([7])), tmp_path)
    assert kinds(model) == ["Cast", "Add"]
    expected = np.argsort(-LARGE, axis=0, kind="stable")[:7]
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), expected)


def test_moves_before_arithmetic_are_folded_with_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["a"], ["t"], perm=[1, 0]),
        helper.make_node("Erf", ["t"], ["r"]),
    ]
    assert kinds(folded(model_of(nodes, 350, 400, a=LARGE), tmp_path)) == ["Add"]


def test_large_weights_that_are_only_moved_stay_as_they_are(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["a"], ["t"], perm=[1, 0]),
        helper.make_node("Slice", ["t", "zero", "end"], ["r"]),
    ]
    constants = {"zero": np.array([0]), "end": np.array([300])}
    model = folded(model_of(nodes, 300, 400, a=LARGE, **constants), tmp_path)
    assert "Transpose" in kinds(model)


def test_results_that_are_larger_than_their_operands_are_not_made(tmp_path: Path) -> None:
    column, row = LARGE[:, :1].repeat(200, 0), LARGE[:1].repeat(200, 1)
    nodes = [helper.make_node("Mul", ["a", "b"], ["r"])]
    model = folded(model_of(nodes, 80_000, 70_000, a=column, b=row), tmp_path)
    assert kinds(model) == ["Mul", "Add"]


def test_comparisons_of_large_constants_are_exact(tmp_path: Path) -> None:
    """Core AI's own folding takes numbers that differ by 2e-7 as equal, and infinity as equal to any number."""
    numbers = np.linspace(1 - 1e-5, 1 + 1e-5, 70_000, dtype=np.float32)
    nodes = [helper.make_node("Equal", ["a", "one"], ["e"]), helper.make_node("Cast", ["e"], ["r"], to=FLOAT)]
    graph = helper.make_graph(
        [*nodes, helper.make_node("Add", ["r", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1])],
        [helper.make_tensor_value_info("y", FLOAT, [70_000])],
        [numpy_helper.from_array(numbers, "a"), numpy_helper.from_array(np.float32(1), "one")],
    )
    model = folded(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path)
    assert "Equal" not in kinds(model)
    (found,) = [each for each in model.graph.initializer if each.dims == [70_000]]
    np.testing.assert_array_equal(numpy_helper.to_array(found), numbers == 1)
